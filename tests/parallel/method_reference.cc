#include "tests/parallel/method_reference.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <stdexcept>

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "base/error.h"
#include "tests/parallel/method_reference_parts.h"

namespace sprocket::parallel::testing {

double scale_of(const AttentionCase& c) { return 1 / std::sqrt(static_cast<double>(c.head_dim)); }

at::Tensor block_of_token(const TokenLayout& layout) {
  const at::Tensor block = at::empty({layout.tokens()}, at::kLong);
  for (int i = 0; i < layout.blocks(); ++i) {
    block.slice(0, layout.block_offsets[i], layout.block_offsets[i + 1]).fill_(i);
  }
  return block;
}

at::Tensor heads_first(const at::Tensor& x_BLHD) {
  return x_BLHD.to(at::kDouble).transpose(1, 2).contiguous();
}

at::Tensor means(const std::vector<int64_t>& first_token, const std::vector<int64_t>& tokens,
                 const at::Tensor& x) {
  const auto rows = static_cast<int64_t>(first_token.size());
  const at::Tensor member = at::zeros({rows, x.size(2)}, x.scalar_type());
  for (int64_t r = 0; r < rows; ++r) member[r].narrow(0, first_token[r], tokens[r]).fill_(1);
  const at::Tensor counts = at::tensor(tokens, at::kLong).clamp_min(1).to(x.scalar_type());
  return at::matmul(member, x) / counts.unsqueeze(-1);
}

at::Tensor block_means(const TokenLayout& layout, const at::Tensor& x) {
  std::vector<int64_t> first, tokens;
  for (int i = 0; i < layout.blocks(); ++i) {
    first.push_back(layout.block_offsets[i]);
    tokens.push_back(layout.block_offsets[i + 1] - layout.block_offsets[i]);
  }
  return means(first, tokens, x);
}

void set(const at::Tensor& selected, int64_t b, int64_t h, int64_t i, int64_t column) {
  const int64_t row = (b * selected.size(1) + h) * selected.size(2) + i;
  selected.data_ptr<bool>()[row * selected.size(3) + column] = true;
}

std::vector<double> row_of(const at::Tensor& x, int64_t b, int64_t h, int64_t i) {
  const double* row =
      x.data_ptr<double>() + ((b * x.size(1) + h) * x.size(2) + i) * x.size(3);  // contiguous
  return {row, row + x.size(3)};
}

std::vector<int64_t> best(const std::vector<double>& values, std::vector<int64_t> candidates,
                          int64_t k) {
  std::sort(candidates.begin(), candidates.end(), [&](int64_t a, int64_t b) {
    return values[a] != values[b] ? values[a] > values[b] : a < b;
  });
  candidates.resize(std::min<size_t>(static_cast<size_t>(k), candidates.size()));
  return candidates;
}

std::vector<int64_t> range(int64_t first, int64_t last) {
  std::vector<int64_t> ids(static_cast<size_t>(last - first));
  std::iota(ids.begin(), ids.end(), first);
  return ids;
}

double share_of(const Decimal& share, double total) {
  constexpr int64_t kDigits = 1'000'000'000'000'000'000;
  return static_cast<double>(static_cast<long double>(share.floor_times(kDigits)) / kDigits *
                             total);
}

KeyRows block_rows(const TokenLayout& layout) {
  KeyRows rows;
  for (int j = 0; j < layout.blocks(); ++j) {
    for (int64_t t = layout.block_offsets[j]; t < layout.block_offsets[j + 1]; ++t) {
      rows.add(t, 1, j);
    }
  }
  return rows;
}

KeyRows pyramid_rows(const TokenLayout& layout) {
  KeyRows rows;
  for (int j = 0; j < layout.blocks(); ++j) {
    const int64_t last = layout.block_offsets[j + 1];
    for (int level = 1; level <= 4; ++level) {
      const int64_t width = int64_t{1} << (level - 1);
      for (int64_t t = layout.block_offsets[j]; t < last; t += width) {
        rows.add(t, std::min(width, last - t), 4 * j + level - 1);
      }
    }
  }
  return rows;
}

KeyRows global_rows(const TokenLayout& layout, int width) {
  KeyRows rows = block_rows(layout);
  int64_t column = layout.blocks();
  for (int64_t t = layout.prefix_tokens(); t < layout.tokens(); t += width) {
    rows.add(t, std::min<int64_t>(width, layout.tokens() - t), column++);
  }
  return rows;
}

at::Tensor with_global_columns(const AttentionCase& c, const TokenLayout& layout,
                               const at::Tensor& selected) {
  std::vector<int64_t> first;
  for (int64_t t = layout.prefix_tokens(); t < layout.tokens(); t += c.spec.asa.global_width) {
    first.push_back(t);
  }
  const at::Tensor blocks =
      block_of_token(layout).index_select(0, at::tensor(first, at::kLong));  // of each group
  const at::Tensor own = selected.index_select(3, blocks);
  return at::cat({selected, c.spec.asa.exclude_selected ? own.logical_not() : at::ones_like(own)},
                 3);
}

MethodChoice choose_static(const AttentionCase& c) {
  const TokenLayout layout = make_token_layout(c.layout);
  const int64_t n = layout.blocks(), prefix = layout.prefix_blocks();
  MethodChoice choice{block_rows(layout), at::ones({c.batch, c.heads, n, n}, at::kBool), {}};
  if (c.spec.method == MethodKind::kDense) return choice;
  const std::array<int, 3> cube{c.layout.cube.t, c.layout.cube.h, c.layout.cube.w},
      grid{c.layout.grid.t, c.layout.grid.h, c.layout.grid.w};
  const auto place = [&](int64_t block, int axis) {
    return layout.position(layout.block_offsets[block])[axis] / cube[axis];
  };
  for (int64_t i = prefix; i < n; ++i) {
    for (int64_t j = prefix; j < n; ++j) {
      for (int axis = 0; axis < 3; ++axis) {
        const int cubes = (grid[axis] + cube[axis] - 1) / cube[axis];
        const int window = std::min(c.spec.sliding_tile.window[axis], cubes);
        int first = place(i, axis) - window / 2;
        while (first < 0) ++first;
        while (first + window > cubes) --first;
        if (place(j, axis) < first || place(j, axis) >= first + window) {
          choice.selected.select(3, j).select(2, i).fill_(false);
        }
      }
    }
  }
  return choice;
}

MethodChoice choose(const AttentionCase& c, const AttentionTensors& inputs) {
  switch (c.spec.method) {
    case MethodKind::kDense:
    case MethodKind::kSlidingTile:
      return choose_static(c);
    case MethodKind::kVsa:
      return choose_vsa(c, inputs);
    case MethodKind::kBsa:
      return choose_bsa(c, inputs);
    case MethodKind::kPsa:
      return choose_psa(c, inputs);
    case MethodKind::kAsa:
      return choose_asa(c, inputs);
  }
  throw InternalError("unknown attention method");
}

AttentionResult attend(const AttentionCase& c, const AttentionTensors& inputs,
                       const MethodChoice& choice, at::ScalarType dtype) {
  const TokenLayout layout = make_token_layout(c.layout);
  const auto leaf = [&](const at::Tensor& x) {
    return x.defined() ? x.to(dtype).detach().clone().requires_grad_(true) : at::Tensor();
  };
  const at::Tensor q_leaf = leaf(inputs.q), k_leaf = leaf(inputs.k), v_leaf = leaf(inputs.v);
  const AttentionGates gates{leaf(inputs.gates.coarse), leaf(inputs.gates.fine)};
  const at::Tensor q = q_leaf.transpose(1, 2), k = k_leaf.transpose(1, 2),
                   v = v_leaf.transpose(1, 2);
  const at::Tensor blocks = block_of_token(layout);

  const auto rows = [&](const at::Tensor& x) {
    return means(choice.keys.first_token, choice.keys.tokens, x);
  };
  const at::Tensor bias = at::tensor(choice.keys.tokens, at::kDouble).log().to(dtype);
  const at::Tensor allowed = choice.selected.index_select(2, blocks).index_select(
      3, at::tensor(choice.keys.column, at::kLong));
  const double infinity = std::numeric_limits<double>::infinity();
  const at::Tensor logits = scale_of(c) * at::matmul(q, rows(k).transpose(-1, -2)) + bias;
  at::Tensor lse = at::logsumexp(logits.detach().masked_fill(allowed.logical_not(), -infinity), -1);
  const at::Tensor nothing = allowed.any(-1, true).logical_not();
  const at::Tensor p =
      at::softmax(logits.masked_fill(allowed.logical_not(), -infinity).masked_fill(nothing, 0), -1)
          .masked_fill(allowed.logical_not(), 0);
  at::Tensor out = at::matmul(p, rows(v));
  if (choice.source.defined()) {
    out = out.gather(2, choice.source.unsqueeze(-1).expand_as(out));
    lse = lse.gather(2, choice.source);
  }
  out = out.transpose(1, 2);
  if (gates.fine.defined()) out = out * gates.fine;
  if (c.spec.method == MethodKind::kVsa && c.spec.vsa.coarse != CoarseBranch::kNone) {
    const at::Tensor scores =
        scale_of(c) * at::matmul(block_means(layout, q), block_means(layout, k).transpose(-1, -2));
    const at::Tensor coarse = at::matmul(at::softmax(scores, -1), block_means(layout, v))
                                  .index_select(2, blocks)
                                  .transpose(1, 2);
    out = out + (gates.coarse.defined() ? coarse * gates.coarse : coarse);
  }
  out.backward(inputs.dout.to(dtype));

  const auto gradient = [](const at::Tensor& x) { return x.defined() ? x.grad() : at::Tensor(); };
  return {out.detach(),
          lse.transpose(1, 2).contiguous(),
          q_leaf.grad(),
          k_leaf.grad(),
          v_leaf.grad(),
          {gradient(gates.coarse), gradient(gates.fine)},
          {},
          {}};
}

Reference make_reference(const AttentionCase& c, const AttentionTensors& inputs) {
  Reference reference{choose(c, inputs), {}};
  reference.result = attend(c, inputs, reference.choice, at::kDouble);
  return reference;
}

const Reference& References::of(const AttentionCase& c, const AttentionTensors& inputs) {
  auto [found, fresh] = made_.try_emplace(c.problem());
  if (fresh) found->second = make_reference(c, inputs);
  return found->second;
}

namespace {

// Which column of a choice an id of the table stands for.
std::vector<int64_t> columns_of_ids(const AttentionCase& c, const TokenLayout& layout) {
  if (c.spec.method != MethodKind::kPsa) return range(0, layout.blocks());
  std::vector<int64_t> columns;
  for (int j = 0; j < layout.blocks(); ++j) {
    const int64_t tokens = layout.block_offsets[j + 1] - layout.block_offsets[j];
    for (int level = 1; level <= 4; ++level) {
      const int64_t width = int64_t{1} << (level - 1);
      if (tokens >= width) columns.push_back(4 * j + level - 1);
      if (tokens % width != 0) columns.push_back(4 * j + level - 1);
    }
  }
  return columns;
}

// [B, H here, query blocks here, columns of the table's ids]
at::Tensor selected_of(const AttentionCase& c, const TokenLayout& layout,
                       const kernels::SegmentTable& table) {
  const auto columns = columns_of_ids(c, layout);
  if (table.kv_blocks != static_cast<int>(columns.size())) {
    throw std::runtime_error(fmt::format("{}: {} ids in the table, expected {}", c.name(),
                                         table.kv_blocks, columns.size()));
  }
  const int64_t width = columns.empty() ? 0 : columns.back() + 1;
  const at::Tensor found =
      at::zeros({table.batch, table.heads, table.query_blocks, width}, at::kLong);
  const at::Tensor expected = at::zeros({width}, at::kLong);  // segments of a column
  for (const int64_t column : columns) expected[column] += 1;
  auto rows = found.view({-1, width});
  int64_t* counts = rows.data_ptr<int64_t>();
  for (int64_t row = 0; row < table.rows(); ++row) {
    for (int64_t e = table.row_offsets[row]; e < table.row_offsets[row + 1]; ++e) {
      ++counts[row * width + columns[table.kv_block[e]]];
    }
  }
  const at::Tensor selected = found > 0;
  if (!at::where(selected, found == expected, at::ones({}, at::kBool)).all().item<bool>()) {
    throw std::runtime_error(c.name() + ": a level is listed in part or twice");
  }
  return selected;
}

// [B, H here, tokens here], relative to the first token here.
at::Tensor source_of(const kernels::QueryPruning& pruning) {
  const int64_t heads = int64_t{pruning.batch} * pruning.heads, tokens = pruning.tokens();
  const at::Tensor source = at::empty({pruning.batch, pruning.heads, tokens}, at::kLong);
  for (int64_t bh = 0; bh < heads; ++bh) {
    for (int64_t t = 0; t < tokens; ++t) {
      const int64_t row = pruning.source[bh * tokens + t];
      source.data_ptr<int64_t>()[bh * tokens + t] = pruning.kept[bh * pruning.kept_rows() + row];
    }
  }
  return source;
}

void check_share(const AttentionCase& c, const char* what, const std::vector<kernels::Share>& found,
                 size_t head, double part, double whole) {
  const double tolerance = 1e-10 * (1 + whole);
  if (std::abs(found.at(head).part - part) <= tolerance &&
      std::abs(found.at(head).whole - whole) <= tolerance) {
    return;
  }
  throw std::runtime_error(fmt::format("{}: {} of head {}: {} / {}, expected {} / {}", c.name(),
                                       what, head, found[head].part, found[head].whole, part,
                                       whole));
}

// The statistics of domains [first, last) and of heads from first_head on.
void check_domain_statistics(const AttentionCase& c, const TokenLayout& layout,
                             const MethodChoice& choice, const AttentionStatistics& statistics,
                             int first, int last, int64_t first_head, int64_t heads) {
  if (c.layout.domains == 1) return;
  const int64_t n = layout.blocks(), prefix = layout.prefix_blocks();
  const int64_t columns = c.spec.method == MethodKind::kPsa ? 4 : 1;
  const at::Tensor listed =
      choice.selected.narrow(3, 0, n * columns).view({c.batch, c.heads, n, n, columns}).any(-1);
  if (!choice.allowed.defined() && !statistics.kept_mass.empty()) {
    throw std::runtime_error(c.name() + ": a mass was kept without a budget");
  }
  for (int64_t h = 0; h < heads; ++h) {
    double needed = 0, remote = 0, kept = 0, mass = 0;
    for (int g = first; g < last; ++g) {
      const int64_t from = layout.domain_blocks[g], count = layout.domain_blocks[g + 1] - from;
      if (count == 0) continue;
      const at::Tensor columns_of =
          listed.select(1, first_head + h).narrow(1, from, count).any(1);  // [B, n]
      needed += columns_of.narrow(1, prefix, n - prefix).sum().item<double>() -
                columns_of.narrow(1, from, count).sum().item<double>();
      remote += static_cast<double>(c.batch * (n - prefix - count));
      if (!choice.allowed.defined()) continue;
      kept += choice.kept_part[g][first_head + h].item<double>();
      mass += choice.kept_whole[g][first_head + h].item<double>();
    }
    const auto head = static_cast<size_t>(first_head + h);
    check_share(c, "domain coverage", statistics.domain_coverage, head, needed, remote);
    if (choice.allowed.defined()) {
      check_share(c, "kept mass", statistics.kept_mass, head, kept, mass);
    }
  }
}

// Density and coverage of query blocks [first, first + count), the outer rank's, and of heads from
// first_head on.
void check_head_statistics(const AttentionCase& c, const TokenLayout& layout,
                           const MethodChoice& choice, const AttentionStatistics& statistics,
                           int64_t first, int64_t count, int64_t first_head, int64_t heads) {
  const int64_t n = layout.blocks(), prefix = layout.prefix_blocks();
  const int64_t levels = c.spec.method == MethodKind::kPsa ? 4 : 1;
  std::vector<double> weights;  // of a column
  for (int64_t column = 0; column < choice.selected.size(3); ++column) {
    const double of_token = static_cast<double>(n) / static_cast<double>(layout.tokens());
    const auto width = static_cast<double>(1 << column % levels);
    weights.push_back(column < n * levels ? 1 / width : of_token);
  }
  const at::Tensor weight = at::tensor(weights, at::kDouble);
  const bool merges_prefix = c.mesh.outer > 1 && prefix > 0 && !c.strategy.single_pass;
  const int64_t skipped = merges_prefix ? std::clamp<int64_t>(prefix - first, 0, count) : 0;
  std::vector<int64_t> remote;  // columns of the ids of remote blocks
  for (const int64_t column : columns_of_ids(c, layout)) {
    const int64_t block = column / levels;
    if (block >= prefix && (block < first || block >= first + count)) remote.push_back(column);
  }
  kernels::Share density, coverage;
  for (int64_t h = first_head; h < first_head + heads; ++h) {
    const at::Tensor selected = choice.selected.select(1, h).narrow(1, first, count);
    double part = (selected.to(at::kDouble) * weight).sum().item<double>();
    if (choice.source.defined()) {
      const int64_t from = layout.block_offsets[first], to = layout.block_offsets[first + count];
      const at::Tensor source = choice.source.select(1, h).narrow(1, from, to - from);
      const at::Tensor kept = source == at::arange(from, to, at::kLong);
      if (to > from) part *= kept.to(at::kDouble).mean().item<double>();
    }
    const at::Tensor needed = selected.narrow(1, skipped, count - skipped).any(1);
    const double listed =
        needed.index_select(1, at::tensor(remote, at::kLong)).sum().item<double>();
    const auto head = static_cast<size_t>(h);
    check_share(c, "density", statistics.head_density, head, part,
                static_cast<double>(c.batch * count * n));
    check_share(c, "coverage", statistics.head_coverage, head, listed,
                static_cast<double>(c.batch * std::ssize(remote)));
    density += statistics.head_density[head];
    coverage += statistics.head_coverage[head];
  }
  if (density != kernels::total_of(statistics.head_density) ||
      density.value() != statistics.density ||
      coverage != kernels::total_of(statistics.head_coverage) ||
      coverage.value() != statistics.coverage) {
    throw std::runtime_error(c.name() + ": density or coverage is not that of the heads here");
  }
}

}  // namespace

MethodChoice choice_of(const AttentionCase& c, const Selection& selection) {
  const TokenLayout layout = make_token_layout(c.layout);
  MethodChoice choice{block_rows(layout), selected_of(c, layout, *selection.table), {}};
  if (c.spec.method == MethodKind::kPsa) choice.keys = pyramid_rows(layout);
  if (c.spec.method == MethodKind::kAsa && c.spec.asa.global_width > 0) {
    choice.keys = global_rows(layout, c.spec.asa.global_width);
    choice.selected = with_global_columns(c, layout, choice.selected);
  }
  if (selection.pruning) choice.source = source_of(*selection.pruning);
  return choice;
}

void check_case(const AttentionCase& c, const AttentionTensors& inputs, const Reference& reference,
                comm::Communicator& world, double tolerance) {
  const Mesh mesh(world.split(0, world.rank(), "world"), c.mesh);
  const AttentionResult part = run_sharded(c, inputs, mesh);
  const TokenLayout layout = make_token_layout(c.layout);
  const ShardPlan plan = make_shard_plan(layout, c.mesh);
  const auto [data, outer, ulysses] = mesh.coordinate();
  const int64_t heads = c.heads / c.mesh.ulysses;
  const int64_t first = plan.outer_blocks[outer], count = plan.outer_blocks[outer + 1] - first;
  const at::Tensor selected = selected_of(c, layout, *part.selection.table);
  const auto here = [&](const at::Tensor& x) { return x.narrow(1, ulysses * heads, heads); };
  const at::Tensor expected =
      here(reference.choice.selected).narrow(2, first, count).narrow(3, 0, selected.size(3));
  if (!selected.equal(expected)) {
    throw std::runtime_error(fmt::format("{}: rank {} selects {} pairs otherwise", c.name(),
                                         world.rank(), (selected != expected).sum().item<int>()));
  }
  if (reference.choice.source.defined()) {
    const at::Tensor source = here(reference.choice.source)
                                  .narrow(2, plan.outer_tokens[outer],
                                          plan.outer_tokens[outer + 1] - plan.outer_tokens[outer]);
    const at::Tensor found =
        part.selection.pruning
            ? source_of(*part.selection.pruning) + plan.outer_tokens[outer]
            : at::arange(plan.outer_tokens[outer], plan.outer_tokens[outer + 1], at::kLong)
                  .expand_as(source);
    if (!found.equal(source)) {
      throw std::runtime_error(
          fmt::format("{}: rank {} prunes other queries", c.name(), world.rank()));
    }
  }
  const int domains = c.layout.domains / c.mesh.outer;
  check_domain_statistics(c, layout, reference.choice, part.statistics, outer * domains,
                          (outer + 1) * domains, ulysses * heads, heads);
  check_head_statistics(c, layout, reference.choice, part.statistics, first, count, ulysses * heads,
                        heads);
  const double difference =
      largest_difference(reference.result, part, plan, mesh.sequence().rank());
  if (!(difference <= tolerance)) {
    throw std::runtime_error(fmt::format("{}: rank {} differs by {:.3g}, more than {:.3g}",
                                         c.name(), world.rank(), difference, tolerance));
  }
}

}  // namespace sprocket::parallel::testing
