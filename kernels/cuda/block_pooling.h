// Block means and their gradient on the device: the values of kernels/block_pooling.h, bit by bit.
//
// Pointers are to device memory; `offsets` [blocks + 1] are rows. Everything is asynchronous on
// `stream`, allocates nothing, and throws CudaError when a launch is refused.
#pragma once

#include <cstdint>

#include "base/dtype.h"
#include "base/stream.h"
#include "kernels/head_view.h"

namespace sprocket::kernels::cuda {

// means[b, h, i, :] = mean in fp32 of rows offsets[i] .. offsets[i+1]-1 of x, summed in ascending
// order; contiguous [batch, heads, blocks, head_dim]; an empty block gives zeros. dtype: kF32,
// kBF16 or kF16. Fastest where head_dim, the strides and the address are multiples of 16 bytes.
void pool_blocks(HeadView<const void> x, DType dtype, const int64_t* offsets, int blocks, int batch,
                 int heads, int head_dim, float* means, StreamView stream);

// Means of parts of blocks, [batch, heads, blocks, parts, head_dim]: piece a of block i is its rows
// from a * capacity / parts on, at most capacity / parts of them; an empty piece gives zeros.
// `parts` divides `capacity`; no block has more than `capacity` rows.
void pool_sub_blocks(HeadView<const void> x, DType dtype, const int64_t* offsets, int blocks,
                     int parts, int capacity, int batch, int heads, int head_dim, float* means,
                     StreamView stream);

// dx[row] += dmeans[block of row] / rows of the block.
void add_pooling_gradient(const float* dmeans, const int64_t* offsets, int blocks, int batch,
                          int heads, int head_dim, HeadView<float> dx, StreamView stream);

}  // namespace sprocket::kernels::cuda
