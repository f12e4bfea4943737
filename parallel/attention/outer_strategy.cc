#include "parallel/attention/outer_strategy.h"

#include "base/error.h"

namespace sprocket::parallel {

std::vector<int64_t> OuterShards::own_offsets() const {
  std::vector<int64_t> offsets;
  for (int block = blocks[self]; block <= blocks[self + 1]; ++block) {
    offsets.push_back(block_offsets[block] - first_token(self));
  }
  return offsets;
}

kernels::KvBlockMap empty_map(const OuterShards& shards) {
  kernels::KvBlockMap map;
  map.kv_blocks = static_cast<int>(shards.block_offsets.size()) - 1;
  map.blocks.resize(map.kv_blocks);
  return map;
}

void add_shard_blocks(const OuterShards& shards, int rank, int buffer, kernels::KvBlockMap& map) {
  for (int block = shards.blocks[rank]; block < shards.blocks[rank + 1]; ++block) {
    map.blocks[block] = {buffer, shards.block_rows(block),
                         shards.block_offsets[block] - shards.first_token(rank),
                         shards.block_bias(block)};
  }
}

void add_replicated_blocks(const OuterShards& shards, int buffer, kernels::KvBlockMap& map) {
  for (int block = 0; block < std::ssize(shards.replicated_row); ++block) {
    if (shards.replicated_row[block] < 0) continue;
    map.blocks[block] = {buffer, shards.block_rows(block), shards.replicated_row[block],
                         shards.block_bias(block)};
  }
}

std::unique_ptr<OuterStrategy> make_outer_strategy(const StrategySpec& spec, OuterShards shards,
                                                   const RankGroup& group) {
  SPROCKET_CHECK_EQ(shards.ranks(), group.host.size());
  if (group.host.size() == 1) return make_local_strategy(std::move(shards), group);
  switch (spec.outer) {
    case OuterStrategyKind::kRing:
      return make_ring_strategy(std::move(shards), group, spec);
    case OuterStrategyKind::kAllGather:
    case OuterStrategyKind::kSelected:
      return make_fetching_strategy(std::move(shards), group, spec);
  }
  throw InternalError("unknown outer strategy");
}

}  // namespace sprocket::parallel
