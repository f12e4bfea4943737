// BSA's query pruning on LibTorch tensors: the way to the kept queries and back.
#pragma once

#include <ATen/core/Tensor.h>

#include "kernels/query_pruning.h"
#include "parallel/attention/segment_pass.h"

namespace sprocket::parallel {

// Replaces the queries of `query` by the kept ones and sets how many of each block are in use.
void prune(const kernels::QueryPruning& pruning, QuerySide& query);

// [B, kept, H, D] -> [B, L, H, D]
at::Tensor recover(const kernels::QueryPruning& pruning, const at::Tensor& kept_BLHD, int threads);
// [B, H, kept] -> [B, H, L]
at::Tensor recover_lse(const kernels::QueryPruning& pruning, const at::Tensor& kept_BHL,
                       int threads);
// The gradient of recover.
at::Tensor recover_backward(const kernels::QueryPruning& pruning, const at::Tensor& dout_BLHD,
                            int threads);
// Gradients of kept queries to those of all, zero for pruned ones; accumulator type.
at::Tensor scatter_gradients(const kernels::QueryPruning& pruning, const at::Tensor& dkept_BLHD,
                             int threads);

}  // namespace sprocket::parallel
