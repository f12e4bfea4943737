// How the fine stage gets at the K and V of other outer ranks. Narrow interface 3.
//
// A strategy sees one outer shard: Q, K, V of whole blocks, after Ulysses. It merges the attention
// of the own query blocks over all listed blocks into the output, and in the backward adds exact
// gradients to those of the query and own key rows. All ranks of the outer group call it together.
#pragma once

#include <memory>

#include <ATen/core/Tensor.h>

#include "parallel/attention/segment_pass.h"
#include "parallel/comm/communicator.h"
#include "parallel/sequence_attention.h"

namespace sprocket::parallel {

// Whole blocks over the outer ranks; on the key side, segments (key_shards.h). Where the first rank
// does not begin with block 0, the blocks before are replicated: every rank holds them, in a buffer
// of their own (the prefix, prefix_branch.h), and nothing of them moves.
struct OuterShards {
  std::vector<int64_t> block_offsets;  // [blocks + 1] in rows, of the whole sequence
  std::vector<int32_t> blocks;         // [ranks + 1] first block of each rank
  int self = 0;
  std::vector<double> bias;             // [blocks] of their logits; empty: 0
  std::vector<int64_t> replicated_row;  // [blocks[0]] first row in their buffer; -1: not there

  int ranks() const { return static_cast<int>(blocks.size()) - 1; }
  int64_t first_token(int rank) const { return block_offsets[blocks[rank]]; }
  int64_t tokens(int rank) const { return first_token(rank + 1) - first_token(rank); }
  double block_bias(int block) const { return bias.empty() ? 0 : bias[block]; }
  int block_rows(int block) const {
    return static_cast<int>(block_offsets[block + 1] - block_offsets[block]);
  }
  // Of all ranks together, without the replicated ones.
  int sharded_blocks() const { return blocks.back() - blocks.front(); }
  // Query offsets of the own blocks, relative to the own first token.
  std::vector<int64_t> own_offsets() const;
};

// The blocks of `rank`'s shard at their place in that shard, as buffer `buffer`; others absent.
void add_shard_blocks(const OuterShards& shards, int rank, int buffer, kernels::KvBlockMap& map);
void add_replicated_blocks(const OuterShards& shards, int buffer, kernels::KvBlockMap& map);
kernels::KvBlockMap empty_map(const OuterShards& shards);

struct OuterCall {
  QuerySide query;
  at::Tensor k_BLHD, v_BLHD;  // own rows
  KvTensors replicated;       // undefined where nothing is
};

// Accumulators of one call's gradients. Those of replicated rows are this rank's part.
struct OuterGradients {
  at::Tensor dq_BLHD, dk_BLHD, dv_BLHD;
  KvTensors replicated;
};

class OuterStrategy {
 public:
  // What the backward of one call needs besides its arguments.
  class Memory {
   public:
    virtual ~Memory() = default;
  };

  virtual ~OuterStrategy() = default;
  virtual std::unique_ptr<Memory> forward(const OuterCall& call, PassOutput& output) = 0;
  virtual void backward(const OuterCall& call, Memory& memory, const OutputSide& output,
                        const OuterGradients& gradients) = 0;
};

// One rank: everything is here.
std::unique_ptr<OuterStrategy> make_local_strategy(OuterShards shards, const RankGroup& group);
std::unique_ptr<OuterStrategy> make_ring_strategy(OuterShards shards, const RankGroup& group,
                                                  const StrategySpec& spec);
// kAllGather and kSelected.
std::unique_ptr<OuterStrategy> make_fetching_strategy(OuterShards shards, const RankGroup& group,
                                                      const StrategySpec& spec);

// Local when the group has one rank.
std::unique_ptr<OuterStrategy> make_outer_strategy(const StrategySpec& spec, OuterShards shards,
                                                   const RankGroup& group);

}  // namespace sprocket::parallel
