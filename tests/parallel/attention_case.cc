#include "tests/parallel/attention_case.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <stdexcept>

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "base/philox.h"

namespace sprocket::parallel::testing {
namespace {

at::Tensor random_tensor(at::IntArrayRef shape, uint64_t stream, at::ScalarType dtype) {
  at::Tensor x = at::empty(shape, at::kFloat);
  RandomStream(7, 0, stream, RandomPurpose::kTest)
      .normal({x.data_ptr<float>(), static_cast<size_t>(x.numel())});
  return x.to(dtype);
}

const char* name_of(OuterStrategyKind kind) {
  switch (kind) {
    case OuterStrategyKind::kAllGather:
      return "all_gather";
    case OuterStrategyKind::kRing:
      return "ring";
    case OuterStrategyKind::kSelected:
      return "selected";
  }
  return "?";
}

// Indices of the k best entries of `candidates` by (value descending, index ascending).
std::vector<int64_t> best(const std::vector<double>& values, std::vector<int64_t> candidates,
                          size_t k) {
  std::stable_sort(candidates.begin(), candidates.end(),
                   [&](int64_t a, int64_t b) { return values[a] > values[b]; });
  candidates.resize(std::min(k, candidates.size()));
  return candidates;
}

// The selection as the rule says, written without regard for speed: [B, H, N, N] of 0 and 1.
at::Tensor selection_mask(const AttentionCase& c, const TokenLayout& layout,
                          const at::Tensor& scores) {
  const int64_t n = layout.blocks();
  const at::Tensor probabilities = at::softmax(scores, -1);
  const size_t k = static_cast<size_t>(
      std::clamp<int64_t>((Decimal::ratio(1, 0) - c.spec.vsa.sparsity).ceil_times(n), 1, n));
  at::Tensor mask = at::zeros_like(scores);
  std::vector<int64_t> everything(n);
  std::iota(everything.begin(), everything.end(), 0);
  const auto row_of = [&](const at::Tensor& x, int64_t b, int64_t h, int64_t i) {
    const at::Tensor row = x[b][h][i].contiguous();
    return std::vector<double>(row.data_ptr<double>(), row.data_ptr<double>() + n);
  };
  const int64_t group = c.spec.vsa.budget_head_group == 0 ? c.heads : c.spec.vsa.budget_head_group;
  for (int64_t b = 0; b < c.batch; ++b) {
    for (int g = 0; g < c.layout.domains; ++g) {
      const int64_t first = layout.domain_blocks[g], last = layout.domain_blocks[g + 1];
      for (int64_t head0 = 0; head0 < c.heads; head0 += group) {
        std::vector<double> mass(group * n, 0);
        for (int64_t h = 0; h < group; ++h) {
          for (int64_t i = first; i < last; ++i) {
            const auto p = row_of(probabilities, b, head0 + h, i);
            for (int64_t j : best(row_of(scores, b, head0 + h, i), everything, k))
              mass[h * n + j] += p[j];
          }
        }
        std::vector<int64_t> remote;
        for (int64_t pair = 0; pair < group * n; ++pair) {
          if (pair % n < first || pair % n >= last) remote.push_back(pair);
        }
        const int64_t budget = c.spec.vsa.max_coverage.floor_times(static_cast<int64_t>(remote.size()));
        const auto imports = best(mass, remote, static_cast<size_t>(budget));
        for (int64_t h = 0; h < group; ++h) {
          std::vector<int64_t> allowed;
          for (int64_t j = 0; j < n; ++j) {
            const bool own = j >= first && j < last;
            if (own || std::find(imports.begin(), imports.end(), h * n + j) != imports.end())
              allowed.push_back(j);
          }
          for (int64_t i = first; i < last; ++i) {
            for (int64_t j : best(row_of(scores, b, head0 + h, i), allowed, k))
              mask[b][head0 + h][i][j] = 1;
          }
        }
      }
    }
  }
  return mask;
}

}  // namespace

std::string AttentionCase::name() const {
  std::string method = spec.method == MethodKind::kDense ? "dense" : "vsa";
  if (layout.domains > 1)
    method += fmt::format("_budget{}x{}g{}", layout.domains, spec.vsa.max_coverage.to_string(),
                          spec.vsa.budget_head_group);
  return fmt::format("{} {} outer {} ulysses {}{} grid {}x{}x{}", method, name_of(strategy.outer),
                     mesh.outer, mesh.ulysses, strategy.keep_remote_kv ? "" : " refetch",
                     layout.grid.t, layout.grid.h, layout.grid.w);
}

AttentionTensors make_inputs(const AttentionCase& c) {
  const std::vector<int64_t> shape{c.batch, c.layout.grid.tokens(), c.heads, c.head_dim};
  AttentionTensors inputs{random_tensor(shape, 1, c.dtype),
                          random_tensor(shape, 2, c.dtype),
                          random_tensor(shape, 3, c.dtype),
                          {},
                          random_tensor(shape, 5, c.dtype)};
  if (c.gated()) inputs.gate = random_tensor(shape, 4, c.dtype);
  return inputs;
}

AttentionResult reference(const AttentionCase& c, const AttentionTensors& inputs) {
  const TokenLayout layout = make_token_layout(c.layout);
  const int64_t tokens = layout.tokens(), n = layout.blocks();
  const auto leaf = [](const at::Tensor& x) {
    return x.to(at::kDouble).detach().clone().requires_grad_(true);
  };
  const at::Tensor q_leaf = leaf(inputs.q), k_leaf = leaf(inputs.k), v_leaf = leaf(inputs.v);
  const at::Tensor q = q_leaf.transpose(1, 2), k = k_leaf.transpose(1, 2),
                   v = v_leaf.transpose(1, 2);
  const double scale = 1.0 / std::sqrt(static_cast<double>(c.head_dim));

  at::Tensor block_of = at::empty({tokens}, at::kLong);
  for (int64_t block = 0; block < n; ++block) {
    block_of.slice(0, layout.block_offsets[block], layout.block_offsets[block + 1]).fill_(block);
  }
  AttentionResult result;
  at::Tensor logits = scale * at::matmul(q, k.transpose(-1, -2)), coarse;
  if (c.spec.method == MethodKind::kVsa) {
    at::Tensor member = at::zeros({n, tokens}, at::kDouble);
    member.index_put_({block_of, at::arange(tokens)}, at::ones({}, at::kDouble));
    const at::Tensor mean = member / member.sum(1, true);
    const at::Tensor scores =
        scale * at::matmul(at::matmul(mean, q), at::matmul(mean, k).transpose(-1, -2));
    coarse = at::matmul(at::softmax(scores, -1), at::matmul(mean, v)).index_select(2, block_of);
    const at::Tensor mask = selection_mask(c, layout, scores.detach());
    const at::Tensor token_mask = mask.index_select(2, block_of).index_select(3, block_of);
    logits = logits.masked_fill(token_mask == 0, -std::numeric_limits<double>::infinity());
  }
  at::Tensor out = at::matmul(at::softmax(logits, -1), v).transpose(1, 2);
  at::Tensor gate;
  if (c.gated()) {
    gate = leaf(inputs.gate);
    out = out + coarse.transpose(1, 2) * gate;
  } else if (c.spec.method == MethodKind::kVsa && c.spec.vsa.coarse == CoarseBranch::kAdd) {
    out = out + coarse.transpose(1, 2);
  }
  out.backward(inputs.dout.to(at::kDouble));
  result.out = out.detach();
  result.dq = q_leaf.grad();
  result.dk = k_leaf.grad();
  result.dv = v_leaf.grad();
  if (gate.defined()) result.dgate = gate.grad();
  return result;
}

AttentionResult run_sharded(const AttentionCase& c, const AttentionTensors& inputs,
                            const Mesh& mesh) {
  SequenceAttention attention(mesh, make_token_layout(c.layout), c.strategy);
  const int rank = mesh.sequence().rank();
  const int64_t first = attention.shards().rank_tokens[rank],
                count = attention.shards().tokens_of(rank);
  const auto own = [&](const at::Tensor& x) {
    return x.defined() ? x.narrow(1, first, count).detach().clone().requires_grad_(true)
                       : at::Tensor();
  };
  const at::Tensor q = own(inputs.q), k = own(inputs.k), v = own(inputs.v), gate = own(inputs.gate);
  AttentionSlot slot;
  if (mesh.timeline()) mesh.timeline()->position.phase = Phase::kForward;
  const at::Tensor out = attention.forward(q, k, v, {gate, {}}, c.spec, slot);
  out.backward(inputs.dout.narrow(1, first, count));
  return {
      out.detach(),    q.grad(),  k.grad(), v.grad(), gate.defined() ? gate.grad() : at::Tensor(),
      slot.statistics, slot.selection.table};
}

double largest_difference(const AttentionResult& whole, const AttentionResult& part,
                          const ShardPlan& plan, int sequence_rank) {
  const int64_t first = plan.rank_tokens[sequence_rank], count = plan.tokens_of(sequence_rank);
  double largest = 0;
  const auto compare = [&](const at::Tensor& all, const at::Tensor& own) {
    if (all.defined() != own.defined()) throw std::runtime_error("a gradient is missing");
    if (!all.defined() || count == 0) return;
    const double difference = (all.narrow(1, first, count).to(at::kDouble) - own.to(at::kDouble))
                                  .abs()
                                  .max()
                                  .item<double>();
    largest = std::isnan(difference) ? difference : std::max(largest, difference);
  };
  compare(whole.out, part.out);
  compare(whole.dq, part.dq);
  compare(whole.dk, part.dk);
  compare(whole.dv, part.dv);
  compare(whole.dgate, part.dgate);
  return largest;
}

void check_case(const AttentionCase& c, const AttentionTensors& inputs,
                const AttentionResult& whole, comm::Communicator& world, double tolerance) {
  const Mesh mesh(world.split(0, world.rank(), "world"), c.mesh);
  const AttentionResult part = run_sharded(c, inputs, mesh);
  const ShardPlan plan = make_shard_plan(make_token_layout(c.layout), c.mesh);
  const double difference = largest_difference(whole, part, plan, mesh.sequence().rank());
  if (!(difference <= tolerance)) {
    throw std::runtime_error(fmt::format("{}: rank {} differs by {:.3g}, more than {:.3g}",
                                         c.name(), world.rank(), difference, tolerance));
  }
}

std::vector<AttentionCase> parity_cases(int ranks) {
  std::vector<AttentionCase> cases;
  const auto add_methods = [&](AttentionCase c) {
    c.spec = {};
    cases.push_back(c);
    c.spec.method = MethodKind::kVsa;
    c.spec.vsa.sparsity = Decimal::parse("0.7");
    cases.push_back(c);
    c.layout.domains = c.mesh.outer == 1 ? 4 : 2 * c.mesh.outer;
    c.spec.vsa.max_coverage = Decimal::parse("0.3");
    c.spec.vsa.budget_head_group = c.mesh.ulysses == 1 ? 0 : c.heads / c.mesh.ulysses;
    cases.push_back(c);
  };
  for (int ulysses : {1, 2, 3, 6}) {
    if (ranks % ulysses != 0) continue;
    for (auto outer :
         {OuterStrategyKind::kSelected, OuterStrategyKind::kRing, OuterStrategyKind::kAllGather}) {
      AttentionCase c;
      c.mesh = {1, ranks / ulysses, ulysses};
      c.strategy.outer = outer;
      if (c.mesh.outer == 1 && outer != OuterStrategyKind::kSelected) continue;
      add_methods(c);
      if (outer == OuterStrategyKind::kRing) continue;
      c.strategy.keep_remote_kv = false;
      add_methods(c);
    }
  }
  // More ranks than cubes: some ranks hold nothing.
  for (auto outer :
       {OuterStrategyKind::kSelected, OuterStrategyKind::kRing, OuterStrategyKind::kAllGather}) {
    AttentionCase c;
    c.layout.grid = {3, 5, 4};
    c.mesh = {1, ranks, 1};
    c.strategy.outer = outer;
    add_methods(c);
  }
  return cases;
}

}  // namespace sprocket::parallel::testing
