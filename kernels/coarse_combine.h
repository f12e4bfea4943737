// Joins VSA's coarse branch with the fine one: out = fine + gate * coarse[block of the row].
#pragma once

#include <cstdint>
#include <span>

#include "kernels/segment_attention.h"

namespace sprocket::kernels {

// fine, out: [B, L, H, D] views; gate: likewise, or null data for weight 1; coarse: contiguous
// [B, H, N, D]; offsets: [N + 1] rows of each block. The sum is made in the accumulator type.
template <class T>
void combine_coarse(HeadView<const Accumulator<T>> fine, HeadView<const T> gate,
                    const Accumulator<T>* coarse, std::span<const int64_t> offsets, int batch,
                    int heads, int head_dim, HeadView<T> out, int threads);

// dcoarse[b, h, i] = sum over the block's rows, ascending, of dout * gate (overwrites);
// dgate = dout * coarse (skipped when dgate.data is null). The gradient of fine is dout itself.
template <class T>
void combine_coarse_backward(HeadView<const T> dout, HeadView<const T> gate,
                             const Accumulator<T>* coarse, std::span<const int64_t> offsets,
                             int batch, int heads, int head_dim, Accumulator<T>* dcoarse,
                             HeadView<T> dgate, int threads);

}  // namespace sprocket::kernels
