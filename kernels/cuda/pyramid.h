// PSA's pooled keys and values on the device: kernels/pyramid.h, block_samples.h and
// level_selection.h's similarity caps, bit by bit (on hosts with fused multiply-adds).
//
// Pointers are to device memory. Everything is asynchronous on `stream`, allocates nothing and
// throws CudaError when a launch is refused; a broken precondition is InternalError.
#pragma once

#include <cstdint>

#include "base/dtype.h"
#include "base/stream.h"
#include "kernels/head_view.h"
#include "kernels/level_rule.h"

namespace sprocket::kernels::cuda {

// Where the extended rows of a call's blocks are, from a PyramidLayout.
struct DevicePyramidRows {
  int blocks = 0;
  int levels = 1;
  int widths[kMostLevels] = {1};           // ascending from 1
  const int64_t* block_offsets = nullptr;  // [blocks + 1] tokens, from 0
  const int64_t* first_rows = nullptr;     // [blocks] PyramidLayout::first_row
};

// extended [batch, rows, heads, head_dim] from the tokens x of the same dtype: kF32, kBF16, kF16.
void expand_pyramid(HeadView<const void> x, DType dtype, const DevicePyramidRows& pyramid,
                    int batch, int heads, int head_dim, HeadView<void> extended, StreamView stream);

// dx[token] += what the token's row and its groups have, levels ascending.
void add_pyramid_gradient(HeadView<const float> d_extended, const DevicePyramidRows& pyramid,
                          int batch, int heads, int head_dim, HeadView<float> dx,
                          StreamView stream);

// Thresholds of similarity_caps for the levels from the second on.
struct CapThresholds {
  double of_level[kMostLevels - 1] = {};
};

// caps: [batch, heads, blocks], overwritten. A block has at most as many tokens as 8 bytes each fit
// in shared memory.
void similarity_caps(HeadView<const void> k, DType dtype, const DevicePyramidRows& pyramid,
                     int largest_block, const CapThresholds& thresholds, int batch, int heads,
                     int head_dim, uint8_t* caps, StreamView stream);

// out: [batch, heads, slots, head_dim] in fp32 of the tokens rows[heads, slots],
// BlockSamples::rows; zeros where the row is -1.
void gather_samples(HeadView<const void> x, DType dtype, const int32_t* rows, int64_t slots,
                    int batch, int heads, int head_dim, float* out, StreamView stream);

}  // namespace sprocket::kernels::cuda
