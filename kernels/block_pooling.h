// Block means, their gradients and their scores (VSA, arXiv 2505.13389; see docs/attention.md).
// Pooled tensors are contiguous [B, H, N, D] in the accumulator type.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/segment_attention.h"

namespace sprocket::kernels {

// pooled[b, h, i, :] = mean of rows offsets[i] .. offsets[i+1]-1 of x; an empty block gives zeros.
template <class T>
void pool_blocks(HeadView<const T> x, std::span<const int64_t> offsets, int batch, int heads,
                 int head_dim, Accumulator<T>* pooled, int threads);

// Means of parts of blocks, for the score `subblock` (kernels/coarse_attention.h). The rows of a
// block, at most `capacity`, are cut in their order into pieces of capacity / parts rows, of which
// the last one that is not empty may be short. `parts` divides `capacity`.
//
// The number of pieces of each block that are not empty; they come first.
std::vector<int32_t> sub_block_counts(std::span<const int64_t> offsets, int parts, int capacity);

// means[b, h, i, a, :] = mean of piece a of block i, [B, H, N, parts, D]; an empty one gives zeros.
template <class T>
void pool_sub_blocks(HeadView<const T> x, std::span<const int64_t> offsets, int parts, int capacity,
                     int batch, int heads, int head_dim, Accumulator<T>* means, int threads);

// The gradient of pool_blocks: dx[row] += dpooled[block of row] / rows of the block.
template <class T>
void add_pooling_gradient(const Accumulator<T>* dpooled, std::span<const int64_t> offsets,
                          int batch, int heads, int head_dim, HeadView<Accumulator<T>> dx,
                          int threads);

// scores[b, h, i, j] = scale * qc[b, h, i] . kc[b, h, j]. The sum over D has one fixed order for
// every element, so a score does not depend on how many rows or columns a call computes.
template <class A>
void coarse_scores(const A* qc, const A* kc, int batch_heads, int query_blocks, int kv_blocks,
                   int head_dim, double scale, A* scores, int threads);

}  // namespace sprocket::kernels
