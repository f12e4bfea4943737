// BSA's query pruning on LibTorch tensors: the way to the kept queries and back.
#pragma once

#include <memory>
#include <vector>

#include <ATen/core/Tensor.h>

#include "kernels/query_pruning.h"
#include "parallel/attention/pruned_queries_device.h"
#include "parallel/attention/segment_pass.h"

namespace sprocket::parallel {

// Chooses the queries of the blocks at `block_offsets` (rows of q). Waits, on a device.
kernels::QueryPruning prune_queries(const at::Tensor& q_BLHD,
                                    const std::vector<int64_t>& block_offsets,
                                    const std::vector<kernels::TokenPosition>& positions,
                                    const kernels::PruningSpec& spec, int first_exempt_blocks,
                                    int threads);

// A pruning for the tensors of one call. Where it keeps everything, tensors come back as they are.
class PrunedQueries {
 public:
  // device: of the tensors.
  PrunedQueries(std::shared_ptr<const kernels::QueryPruning> pruning, const at::Device& device,
                int threads);

  // The kept queries: [B, L, H, D] -> [B, kept, H, D].
  at::Tensor gather(const at::Tensor& q_BLHD) const;
  // Means of the kept queries of every block, [B, H, blocks, D] in the accumulator type.
  at::Tensor means(const at::Tensor& kept_BLHD) const;
  // Replaces the queries of `query` by the kept ones and sets how many of each block are in use.
  void prune(QuerySide& query) const;

  // [B, kept, H, D] -> [B, L, H, D]
  at::Tensor recover(const at::Tensor& kept_BLHD) const;
  // [B, H, kept] -> [B, H, L]
  at::Tensor recover_lse(const at::Tensor& kept_BHL) const;
  // The gradient of recover.
  at::Tensor recover_backward(const at::Tensor& dout_BLHD) const;
  // Gradients of kept queries to those of all, zero for pruned ones; accumulator type.
  at::Tensor scatter_gradients(const at::Tensor& dkept_BLHD) const;

 private:
  std::shared_ptr<const kernels::QueryPruning> pruning_;
  int threads_;
  bool keeps_everything_;
  device::PruningTensors on_device_;  // undefined on the processor
};

}  // namespace sprocket::parallel
