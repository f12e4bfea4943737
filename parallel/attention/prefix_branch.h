// Prefix tokens (text, condition, audio) over several outer ranks.
//
// Their K and V are on every rank. Their queries attend to everything, so no K or V of the video
// moves for them: their rows of Q go to all ranks, each attends with them to its own video keys
// (the first rank to the prefix's as well), and the owners merge the partial outputs in rank order.
// The backward goes the same ways. Prefix rows lead the first shard, and with it further ones where
// the prefix is longer than a shard.
#pragma once

#include <memory>
#include <vector>

#include <ATen/core/Tensor.h>

#include "parallel/attention/key_shards.h"
#include "parallel/attention/segment_pass.h"
#include "parallel/exchange_plan.h"
#include "parallel/token_layout.h"

namespace sprocket::parallel {

// [ranks] how many prefix rows each outer rank holds.
std::vector<int64_t> prefix_rows(const TokenLayout& layout, const OuterShards& blocks);

// `table` without the pairs of the own prefix queries.
std::shared_ptr<const kernels::SegmentTable> without_prefix_queries(
    const std::shared_ptr<const kernels::SegmentTable>& table, int prefix_query_blocks);

class PrefixBranch {
 public:
  // `keys` are the video's. `merges` false: the owners attend with the prefix queries themselves,
  // and only K and V are replicated here. Both must outlive this.
  PrefixBranch(const TokenLayout& layout, const OuterShards& blocks, const KeyShards& keys,
               const RankGroup& group, bool merges);

  int64_t own_rows() const { return rows_[self_]; }

  // Everybody's prefix rows of q, k and v. Collective.
  void gather(const at::Tensor& q_BLHD, const at::Tensor& k_BLHD, const at::Tensor& v_BLHD);
  KvTensors keys() const { return {k_, v_}; }

  // Attends with all prefix queries to `video` (own extended rows) and starts to send the partial
  // outputs to their owners, who merge them into their rows of the output at the end. Collective.
  void start_forward(const QuerySide& like, const KvTensors& video);
  void finish_forward(PassOutput& output);

  // Adds to the gradients of the own video rows and of the replicated ones. output: the own query
  // side's. Collective.
  void backward(const QuerySide& like, const KvTensors& video, const OutputSide& output,
                const KvTensors& dvideo, const KvTensors& dprefix);
  // The own prefix rows of dq, dk, dv += all ranks' parts, in rank order. Collective.
  void give_back(const KvTensors& dprefix, const at::Tensor& dq_BLHD, const at::Tensor& dk_BLHD,
                 const at::Tensor& dv_BLHD);

 private:
  QuerySide query_side(const QuerySide& like) const;
  // From everybody to the owners: `per_row` elements for each of a rank's prefix rows.
  ExchangePlan to_owners(int64_t per_row) const;
  // One part for every rank, in rank order: its message, or the own rows of `own`.
  std::vector<at::Tensor> received(const at::Tensor& message, const ExchangePlan& plan,
                                   const at::Tensor& own) const;
  std::vector<at::Tensor> gather_rows(const std::vector<at::Tensor>& own) const;

  const OuterShards& blocks_;
  comm::Communicator& group_;
  Timeline* timeline_;
  int self_;
  bool merges_;
  std::vector<int64_t> rows_;           // [ranks]
  std::vector<int64_t> first_;          // [ranks + 1]
  std::vector<int64_t> query_offsets_;  // of the prefix blocks
  std::vector<int32_t> listed_;         // segments that prefix queries attend to here
  kernels::KvBlockMap map_;             // buffer 0: own video rows, 1: prefix rows
  int segments_ = 0;

  at::Tensor q_, k_, v_;  // [B, prefix rows, H, D]
  at::Tensor dq_;         // this rank's part, accumulator type
  at::Tensor partial_, sent_, arriving_;
  comm::Work moving_;
};

}  // namespace sprocket::parallel
