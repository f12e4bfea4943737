#include "parallel/traffic.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "kernels/block_samples.h"
#include "kernels/pyramid.h"
#include "parallel/attention/global_branch.h"
#include "parallel/attention/key_shards.h"
#include "parallel/attention/prefix_branch.h"

namespace sprocket::parallel {
namespace {

bool scores_blocks(MethodKind method) {
  return method != MethodKind::kDense && method != MethodKind::kSlidingTile;
}

struct Rows {
  std::vector<TrafficRow>& out;
  std::string group;

  // One message of counts[i] elements for each i != self; empty ones are not sent.
  void add(const char* what, comm::OpKind op, Phase phase, const std::vector<int64_t>& counts,
           int self, int64_t bytes_per_element) {
    TrafficRow row{group, what, op, phase};
    row.bytes_to.resize(counts.size());
    for (int peer = 0; peer < static_cast<int>(counts.size()); ++peer) {
      if (peer == self || counts[peer] == 0) continue;
      row.bytes_to[peer] = counts[peer] * bytes_per_element;
      row.bytes += row.bytes_to[peer];
      ++row.messages;
    }
    out.push_back(std::move(row));
  }
};

void add_ulysses(std::vector<TrafficRow>& out, const ShardPlan& plan, int sequence_rank,
                 const AttentionShape& shape, int groups) {
  const int degree = plan.mesh.ulysses;
  if (degree == 1) return;
  const int self = sequence_rank % degree, first = sequence_rank - self;
  const int64_t element = static_cast<int64_t>(size_of(shape.dtype));
  const int64_t row = shape.batch * shape.heads / degree * shape.head_dim;
  Rows rows{out, "sp.ulysses"};
  std::vector<int64_t> to_heads(degree), to_rows(degree);
  for (int peer = 0; peer < degree; ++peer) {
    to_heads[peer] = plan.tokens_of(sequence_rank) * row;
    to_rows[peer] = plan.tokens_of(first + peer) * row;
  }
  const auto times = [](std::vector<int64_t> counts, int64_t factor) {
    for (auto& count : counts) count *= factor;
    return counts;
  };
  const bool coarse = shape.spec.coarse_gated(), fine = shape.spec.fine_gated();
  const int64_t inputs = 3 + coarse + fine;
  const char* names = coarse && fine   ? "q, k, v, gates"
                      : coarse || fine ? "q, k, v, gate"
                                       : "q, k, v";
  const char* gradients = coarse && fine   ? "gradients of q, k, v, gates"
                          : coarse || fine ? "gradients of q, k, v, gate"
                                           : "gradients of q, k, v";
  using comm::OpKind;
  rows.add(names, OpKind::kExchange, Phase::kForward, times(to_heads, inputs), self, element);
  rows.add("out", OpKind::kExchange, Phase::kForward, to_rows, self, element);
  rows.add("gradient of out", OpKind::kExchange, Phase::kBackward, to_heads, self, element);
  rows.add(gradients, OpKind::kExchange, Phase::kBackward, times(to_rows, inputs), self, element);
  for (TrafficRow& row : out) row.messages *= groups;
}

void add_ring(Rows& rows, const std::vector<int64_t>& shard_elements, int self, int64_t element,
              int64_t accumulator) {
  const int ranks = static_cast<int>(shard_elements.size());
  const auto hop = [&](const char* what, Phase phase, int hops, int64_t bytes) {
    TrafficRow row{rows.group, what, comm::OpKind::kExchange, phase};
    for (int step = 0; step < hops; ++step) {
      const int64_t count = shard_elements[(self - step + ranks) % ranks];
      row.bytes += count * bytes;
      row.messages += count > 0;
    }
    row.bytes_to.resize(ranks);
    row.bytes_to[(self + 1) % ranks] = row.bytes;
    rows.out.push_back(std::move(row));
  };
  hop("k, v", Phase::kForward, ranks - 1, element);
  hop("k, v", Phase::kBackward, ranks - 1, element);
  hop("gradients of k, v", Phase::kBackward, ranks, accumulator);
}

// What a method gathers of all blocks to select by or to attend to, and the gradients of the
// latter.
void add_summaries(Rows& rows, const TokenLayout& layout, const OuterShards& shards,
                   const AttentionShape& shape, int64_t heads, int64_t accumulator) {
  using comm::OpKind;
  const int ranks = shards.ranks(), self = shards.self;
  const int64_t dim = shape.head_dim;
  const auto of_blocks = [&](int64_t per_block) {
    std::vector<int64_t> counts;
    for (int rank = 0; rank < ranks; ++rank) {
      counts.push_back(shape.batch * heads * per_block *
                       (shards.blocks[rank + 1] - shards.blocks[rank]));
    }
    return counts;
  };
  const auto gather = [&](const char* what, const std::vector<int64_t>& counts, int64_t bytes) {
    rows.add(what, OpKind::kAllGather, Phase::kForward, std::vector<int64_t>(ranks, counts[self]),
             self, bytes);
  };
  const auto give_back = [&](const char* what, const std::vector<int64_t>& counts) {
    rows.add(what, OpKind::kReduceScatter, Phase::kBackward, counts, self, accumulator);
  };
  const auto samples = [&](const SamplingSpec& spec) {
    return kernels::sample_blocks(layout.block_offsets, 0, 0, {}, spec.per_block, {}).samples;
  };
  const AttentionSpec& spec = shape.spec;
  if (scores_blocks(spec.method) && layout.spec.domains > 1 && spec.budget.limits() &&
      spec.budget.form == kernels::BudgetForm::kTree) {
    const int64_t domains = layout.spec.domains / ranks;
    const int64_t video = layout.blocks() - layout.prefix_blocks();
    gather("import masses", std::vector<int64_t>(ranks, domains * shape.batch * heads * video),
           accumulator);
  }
  switch (spec.method) {
    case MethodKind::kDense:
    case MethodKind::kSlidingTile:
      break;
    case MethodKind::kVsa: {
      const int64_t pieces = spec.vsa.key_parts > 1 ? spec.vsa.key_parts : 0;
      gather("pooled k, v", of_blocks((2 + pieces) * dim), accumulator);
      if (spec.vsa.coarse != CoarseBranch::kNone) {
        give_back("gradients of pooled k, v", of_blocks(2 * dim));
      }
      break;
    }
    case MethodKind::kBsa:
      gather("pooled k", of_blocks(dim), accumulator);
      break;
    case MethodKind::kPsa:
      gather("sampled k", of_blocks(samples(spec.psa.sampling) * dim), accumulator);
      if (!spec.psa.similarity.empty()) gather("level caps", of_blocks(1), 1);
      break;
    case MethodKind::kAsa: {
      gather("sampled k", of_blocks(samples(spec.asa.sampling) * dim), accumulator);
      if (spec.asa.global_width == 0) break;
      const kernels::GlobalTokens tokens =
          make_global_tokens(layout, spec.asa.global_width, spec.asa.exclude_selected);
      std::vector<int64_t> groups;
      for (int rank = 0; rank < ranks; ++rank) {
        groups.push_back(2 * shape.batch * heads * dim *
                         global_share(layout, shards, tokens, rank).groups.count);
      }
      gather("global k, v", groups, accumulator);
      give_back("gradients of global k, v", groups);
      break;
    }
  }
}

// What the prefix's queries and keys send instead of the video's keys (prefix_branch.h).
void add_prefix(Rows& rows, const TokenLayout& layout, const OuterShards& shards,
                const AttentionShape& shape, const StrategySpec& strategy, int64_t heads,
                int64_t element, int64_t accumulator) {
  using comm::OpKind;
  if (layout.prefix_tokens() == 0) return;
  const std::vector<int64_t> prefix = prefix_rows(layout, shards);
  const int self = shards.self;
  const int64_t row = shape.batch * heads, dim = shape.head_dim;
  const auto to_all = [&](int64_t per_row) {
    return std::vector<int64_t>(shards.ranks(), prefix[self] * row * per_row);
  };
  const auto to_owners = [&](int64_t per_row) {
    std::vector<int64_t> counts = prefix;
    for (int64_t& count : counts) count *= row * per_row;
    return counts;
  };
  const bool merges = !strategy.single_pass;
  rows.add(merges ? "prefix q, k, v" : "prefix k, v", OpKind::kAllGather, Phase::kForward,
           to_all((merges ? 3 : 2) * dim), self, element);
  if (merges) {
    rows.add("prefix partial outputs", OpKind::kExchange, Phase::kForward, to_owners(dim + 1), self,
             accumulator);
    rows.add("prefix gradient of out", OpKind::kAllGather, Phase::kBackward, to_all(dim), self,
             element);
    rows.add("prefix row sums", OpKind::kAllGather, Phase::kBackward, to_all(2), self, accumulator);
  }
  rows.add("gradients of the prefix", OpKind::kExchange, Phase::kBackward,
           to_owners((merges ? 3 : 2) * dim), self, accumulator);
}

}  // namespace

OuterShards key_segments(const TokenLayout& layout, const ShardPlan& plan, int outer_index,
                         const AttentionSpec& spec) {
  return make_key_shards(outer_shards(layout, plan, outer_index), layout.prefix_blocks(),
                         spec.widths())
      .segments;
}

OuterShards outer_shards(const TokenLayout& layout, const ShardPlan& plan, int outer_index) {
  return {layout.block_offsets, plan.outer_blocks, outer_index, {}, {}};
}

SelectedRows rows_of(std::span<const SelectedPlan> groups) {
  const size_t ranks = groups.front().send_rows.size();
  const std::vector<int64_t> none(ranks);
  SelectedRows rows{none, none, none, none};
  for (const SelectedPlan& plan : groups) {
    for (size_t peer = 0; peer < ranks; ++peer) {
      rows.sent[peer] += plan.send_rows[peer];
      rows.received[peer] += plan.receive_rows[peer];
      rows.groups_sent[peer] += plan.send_rows[peer] > 0;
      rows.groups_received[peer] += plan.receive_rows[peer] > 0;
    }
  }
  return rows;
}

namespace {

// Imports that a rank may make of some blocks.
struct ImportPool {
  int first_block = 0, last_block = 0;
  int64_t pairs = 0;  // (head, block)
};

// What rank `consumer` may import by its budget, in one sample.
std::vector<ImportPool> import_pools(const TokenLayout& layout, int ranks, int consumer,
                                     int64_t heads, const BudgetSpec& budget) {
  const int64_t group = budget.head_group == 0 ? heads : budget.head_group;
  const auto limit = [&](const Decimal& share, int64_t blocks) {
    return share.floor_times(group * blocks) * (heads / group);
  };
  const auto& bounds = layout.domain_blocks;
  const int domains = layout.spec.domains, each = domains / ranks;
  const int first = consumer * each, last = first + each;
  std::vector<ImportPool> pools;
  switch (budget.form) {
    case kernels::BudgetForm::kFlat: {
      ImportPool& pool = pools.emplace_back(ImportPool{bounds.front(), bounds.back()});
      for (int g = first; g < last; ++g) {
        const int64_t remote = bounds.back() - bounds.front() - (bounds[g + 1] - bounds[g]);
        pool.pairs += limit(budget.max_coverage.front(), remote);
      }
      break;
    }
    case kernels::BudgetForm::kTree:
      for (int width = domains / 2, level = 0; width >= each; width /= 2, ++level) {
        const int sibling = (first / width) ^ 1;
        const Decimal& share =
            budget.max_coverage.size() == 1 ? budget.max_coverage[0] : budget.max_coverage[level];
        ImportPool pool{bounds[sibling * width], bounds[(sibling + 1) * width]};
        pool.pairs = limit(share, pool.last_block - pool.first_block);
        pools.push_back(pool);
      }
      break;
  }
  return pools;
}

}  // namespace

SelectedRows selected_rows_bound(const TokenLayout& layout, const OuterShards& shards,
                                 int64_t batch, int64_t heads_here, const AttentionSpec& spec) {
  const kernels::PyramidLayout pyramid =
      kernels::make_pyramid_layout(layout.block_offsets, spec.widths());
  const auto& first_segment = pyramid.first_segment;
  const auto first_block = [&](int rank) {
    return static_cast<int>(
        std::lower_bound(first_segment.begin(), first_segment.end(), shards.blocks[rank]) -
        first_segment.begin());
  };
  // All rows of a block that any table may list.
  const auto most_rows_of = [&](int block) {
    return pyramid.first_row(block + 1) - pyramid.first_row(block);
  };
  const bool limited =
      scores_blocks(spec.method) && layout.spec.domains > 1 && spec.budget.limits();
  // Rows of the largest pairs that `consumer` can get from the given ranks.
  const auto most_rows = [&](int consumer, const std::vector<int>& owners) {
    std::vector<ImportPool> pools{{0, layout.blocks(), heads_here * layout.blocks()}};
    if (limited) pools = import_pools(layout, shards.ranks(), consumer, heads_here, spec.budget);
    int64_t rows = 0;
    for (ImportPool& pool : pools) {
      std::vector<int64_t> block_rows;
      for (int owner : owners) {
        const int last = std::min(first_block(owner + 1), pool.last_block);
        for (int block = std::max(first_block(owner), pool.first_block); block < last; ++block) {
          block_rows.push_back(most_rows_of(block));
        }
      }
      std::sort(block_rows.rbegin(), block_rows.rend());
      for (int64_t block : block_rows) {
        const int64_t heads = std::min(pool.pairs, heads_here);
        rows += heads * block;
        pool.pairs -= heads;
      }
    }
    return batch * rows;
  };

  SelectedRows rows;
  std::vector<int> others;
  for (int peer = 0; peer < shards.ranks(); ++peer) {
    if (peer != shards.self) others.push_back(peer);
  }
  int64_t left = most_rows(shards.self, others);
  for (int peer = 0; peer < shards.ranks(); ++peer) {
    const bool self = peer == shards.self;
    rows.sent.push_back(self ? 0 : most_rows(peer, {shards.self}));
    rows.received.push_back(self ? 0 : std::min(most_rows(shards.self, {peer}), left));
    left -= rows.received.back();
  }
  return rows;
}

std::vector<TrafficRow> attention_traffic(const TokenLayout& layout, const ShardPlan& plan,
                                          int sequence_rank, const AttentionShape& shape,
                                          const StrategySpec& strategy,
                                          const SelectedRows& selected) {
  std::vector<TrafficRow> out;
  add_ulysses(out, plan, sequence_rank, shape,
              head_groups(strategy, plan.mesh, shape.spec, shape.heads));
  if (balances_heads(strategy, plan.mesh, shape.spec, shape.heads)) {
    Rows{out, "sp"}.add("costs of heads", comm::OpKind::kAllGather, Phase::kForward,
                        std::vector<int64_t>(plan.mesh.sequence(), shape.heads / plan.mesh.ulysses),
                        sequence_rank, sizeof(int64_t));
  }
  const int ranks = plan.mesh.outer;
  if (ranks == 1) return out;

  using comm::OpKind;
  const int self = sequence_rank / plan.mesh.ulysses;
  const OuterShards shards = outer_shards(layout, plan, self);
  const int64_t element = static_cast<int64_t>(size_of(shape.dtype));
  const int64_t accumulator = shape.dtype == DType::kF64 ? 8 : 4;
  const int64_t heads = shape.heads / plan.mesh.ulysses;
  const OuterShards keys = key_segments(layout, plan, self, shape.spec);
  std::vector<int64_t> shard_elements;
  for (int rank = 0; rank < ranks; ++rank) {
    shard_elements.push_back(2 * shape.batch * keys.tokens(rank) * heads * shape.head_dim);
  }
  const auto to_all = [&](int64_t count) { return std::vector<int64_t>(ranks, count); };
  Rows rows{out, "sp.outer"};
  add_summaries(rows, layout, shards, shape, heads, accumulator);
  add_prefix(rows, layout, shards, shape, strategy, heads, element, accumulator);
  const int64_t gradient = strategy.wide_gradients ? accumulator : element;
  const auto add_gather = [&] {
    const auto fetch = [&](Phase phase) {
      rows.add("k, v", OpKind::kExchange, phase, to_all(shard_elements[self]), self, element);
    };
    fetch(Phase::kForward);
    if (!strategy.keep_remote_kv) fetch(Phase::kBackward);
    rows.add("gradients of k, v", OpKind::kExchange, Phase::kBackward, shard_elements, self,
             gradient);
  };
  const auto add_selected = [&] {
    const auto add = [&](const char* what, Phase phase, std::vector<int64_t> counts,
                         const std::vector<int64_t>& groups, int64_t bytes) {
      for (auto& count : counts) count *= 2 * shape.head_dim;
      rows.add(what, OpKind::kExchange, phase, counts, self, bytes);
      int64_t& messages = out.back().messages;
      if (groups.empty()) {
        messages *= std::ssize(fetch_groups(strategy, shape.batch * heads));
      } else {
        messages = std::accumulate(groups.begin(), groups.end(), int64_t{0});
      }
    };
    const auto fetch = [&](Phase phase) {
      add("selected k, v", phase, selected.sent, selected.groups_sent, element);
    };
    fetch(Phase::kForward);
    if (!strategy.keep_remote_kv) fetch(Phase::kBackward);
    add("gradients of selected k, v", Phase::kBackward, selected.received, selected.groups_received,
        gradient);
  };
  switch (strategy.outer) {
    case OuterStrategyKind::kRing:
      add_ring(rows, shard_elements, self, element, accumulator);
      break;
    case OuterStrategyKind::kAllGather:
      add_gather();
      break;
    case OuterStrategyKind::kSelected: {
      const int64_t segments = static_cast<int64_t>(keys.block_offsets.size()) - 1;
      const int64_t bitmap = (shape.batch * heads * segments + 7) / 8;
      rows.add("need bitmaps", OpKind::kAllGather, Phase::kForward, to_all(bitmap), self, 1);
      if (selected.gathered) {
        add_gather();
      } else {
        add_selected();
      }
      break;
    }
  }
  return out;
}

}  // namespace sprocket::parallel
