// Pruned queries for tensors on a CUDA device: the twins of kernels/query_pruning.h. The same rows,
// means and sums bit by bit. All but prune_queries enqueue and return.
#pragma once

#include <span>

#include <ATen/core/Tensor.h>

#include "kernels/query_pruning.h"

namespace sprocket::parallel::device {

// As kernels::prune_queries. Waits for the rows.
kernels::QueryPruning prune_queries(const at::Tensor& q_BLHD,
                                    std::span<const int64_t> block_offsets,
                                    std::span<const kernels::TokenPosition> positions,
                                    const kernels::PruningSpec& spec, int first_exempt_blocks);

// What the functions below read of a pruning, in device memory.
struct PruningTensors {
  at::Tensor token_offsets, offsets;  // i64
  at::Tensor rows, kept, source;      // i32
};
PruningTensors upload_pruning(const kernels::QueryPruning& pruning, const at::Device& device);

// to[b, r, h, :] = from[b, index[b * heads + h][r], h, :], zeros where the index is negative; bf16
// or fp32.
void gather_rows(const at::Tensor& from_BLHD, const at::Tensor& index, const at::Tensor& to_BRHD);
// [B, H, query blocks, D] in fp32.
at::Tensor kept_means(const at::Tensor& kept_BRHD, const PruningTensors& pruning);
void recover_rows_backward(const at::Tensor& dout_BLHD, const PruningTensors& pruning,
                           const at::Tensor& dkept_BRHD);
// Adds; fp32.
void scatter_query_gradients(const at::Tensor& dkept_BRHD, const PruningTensors& pruning,
                             const at::Tensor& dq_BLHD);

}  // namespace sprocket::parallel::device
