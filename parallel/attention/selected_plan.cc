#include "parallel/attention/selected_plan.h"

#include <algorithm>

#include "base/error.h"

namespace sprocket::parallel {
namespace {

// What `consumer` needs of `owner`'s blocks, in message order; returns the number of K rows.
int64_t list_entries(const OuterShards& shards, const NeedBitmap& need, int owner,
                     const kernels::HeadRange& heads, std::vector<SelectedEntry>& entries) {
  int64_t row = 0;
  for (int64_t batch_head = heads.first; batch_head < heads.last; ++batch_head) {
    for (int block = shards.blocks[owner]; block < shards.blocks[owner + 1]; ++block) {
      if (!need.get(batch_head, block)) continue;
      const int rows = shards.block_rows(block);
      entries.push_back({batch_head, block, rows, row});
      row += rows;
    }
  }
  return row;
}

}  // namespace

NeedBitmap needs_of(const kernels::SegmentTable& table) {
  NeedBitmap need(static_cast<int64_t>(table.batch) * table.heads, table.kv_blocks);
  for (int64_t row = 0; row < table.rows(); ++row) {
    const int64_t batch_head = row / table.query_blocks;
    for (int64_t i = table.row_offsets[row]; i < table.row_offsets[row + 1]; ++i) {
      need.set(batch_head, table.kv_block[i]);
    }
  }
  return need;
}

std::vector<kernels::HeadRange> fetch_groups(const StrategySpec& spec, int64_t batch_heads) {
  constexpr int64_t kEnoughToHideTheRest = 4;
  const bool travels_meanwhile = spec.overlap && !spec.single_pass;
  const int64_t wanted = !travels_meanwhile     ? 1
                         : spec.head_groups > 0 ? spec.head_groups
                                                : kEnoughToHideTheRest;
  const int64_t groups = std::min(wanted, batch_heads);
  std::vector<kernels::HeadRange> ranges;
  for (int64_t g = 0; g < groups; ++g) {
    ranges.push_back({g * batch_heads / groups, (g + 1) * batch_heads / groups});
  }
  return ranges;
}

SelectedPlan plan_selected_exchange(const OuterShards& shards, const std::vector<NeedBitmap>& needs,
                                    const kernels::HeadRange& heads, int64_t head_dim) {
  const int ranks = shards.ranks();
  SPROCKET_CHECK_EQ(static_cast<int>(needs.size()), ranks);
  SelectedPlan plan;
  plan.send.resize(ranks);
  plan.receive.resize(ranks);
  plan.send_rows.resize(ranks);
  plan.receive_rows.resize(ranks);
  for (int peer = 0; peer < ranks; ++peer) {
    if (peer != shards.self) {
      plan.send_rows[peer] = list_entries(shards, needs[peer], shards.self, heads, plan.send[peer]);
      plan.receive_rows[peer] =
          list_entries(shards, needs[shards.self], peer, heads, plan.receive[peer]);
    }
    const int64_t sent = 2 * plan.send_rows[peer] * head_dim;
    const int64_t received = 2 * plan.receive_rows[peer] * head_dim;
    plan.exchange.send.push_back({peer, plan.exchange.send_count, sent});
    plan.exchange.receive.push_back({peer, plan.exchange.receive_count, received});
    plan.exchange.send_count += sent;
    plan.exchange.receive_count += received;
  }
  return plan;
}

bool gathers_everything(const OuterShards& shards, const std::vector<NeedBitmap>& needs,
                        double share) {
  int64_t needed = 0, remote = 0;
  for (int rank = 0; rank < shards.ranks(); ++rank) {
    for (int owner = 0; owner < shards.ranks(); ++owner) {
      if (owner == rank) continue;
      remote += needs[rank].batch_heads * shards.tokens(owner);
      for (int64_t batch_head = 0; batch_head < needs[rank].batch_heads; ++batch_head) {
        for (int block = shards.blocks[owner]; block < shards.blocks[owner + 1]; ++block) {
          if (needs[rank].get(batch_head, block)) needed += shards.block_rows(block);
        }
      }
    }
  }
  return static_cast<double>(needed) > share * static_cast<double>(remote);
}

std::vector<kernels::Share> head_coverage(const OuterShards& shards, const NeedBitmap& need,
                                          int heads) {
  const int64_t own = shards.blocks[shards.self + 1] - shards.blocks[shards.self];
  std::vector<kernels::Share> shares(heads);
  for (int64_t batch_head = 0; batch_head < need.batch_heads; ++batch_head) {
    int64_t needed = 0;
    for (int64_t block = shards.blocks.front(); block < shards.blocks.back(); ++block) {
      const bool is_own =
          block >= shards.blocks[shards.self] && block < shards.blocks[shards.self + 1];
      if (!is_own && need.get(batch_head, block)) ++needed;
    }
    shares[batch_head % heads] +=
        {static_cast<double>(needed), static_cast<double>(shards.sharded_blocks() - own)};
  }
  return shares;
}

}  // namespace sprocket::parallel
