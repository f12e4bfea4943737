// VSA's block summaries over a sharded sequence: pooled means, their gather, scores, and the
// gradients on the way back. Shapes: pooled tensors [B, H, blocks, D] in the accumulator type.
#pragma once

#include <ATen/core/Tensor.h>

#include "kernels/block_selection.h"
#include "parallel/attention/outer_strategy.h"

namespace sprocket::parallel {

struct CoarseSummaries {
  at::Tensor q_own;         // of the own blocks
  at::Tensor k_all, v_all;  // of all blocks of the sequence, the same bits on every rank
};

// Collective over `group`: one all-gather of the pooled K and V.
CoarseSummaries gather_summaries(const OuterShards& shards, comm::Communicator& group,
                                 const at::Tensor& q_BLHD, const at::Tensor& k_BLHD,
                                 const at::Tensor& v_BLHD, int threads);

struct CoarseScores {
  at::Tensor scores, probabilities;  // [B, H, own blocks, blocks]
};
CoarseScores coarse_scores(const CoarseSummaries& summaries, double scale, int threads);

// [B, H, own blocks, D]
at::Tensor coarse_output(const CoarseSummaries& summaries, const at::Tensor& probabilities,
                         int threads);

// Given the gradient of coarse_output, adds the gradients of the pooled means to the token
// gradients dq, dk, dv of the own rows (accumulator type). Collective over `group`: one
// reduce-scatter.
void add_coarse_gradients(const OuterShards& shards, comm::Communicator& group,
                          const CoarseSummaries& summaries, const at::Tensor& dcoarse, double scale,
                          const at::Tensor& dq_BLHD, const at::Tensor& dk_BLHD,
                          const at::Tensor& dv_BLHD, int threads);

}  // namespace sprocket::parallel
