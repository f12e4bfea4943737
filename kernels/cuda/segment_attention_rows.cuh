// What the forward of every family does with the rows of a query block. A warp has 16 of them. The
// sums of its products lie as mma.sync m16n8 and wgmma both leave them: value 4 n + i of a thread
// is row lane / 4 + 8 (i / 2), column 8 n + 2 (lane % 4) + i % 2.
#pragma once

#include <cutlass/numeric_conversion.h>

#include <cute/tensor.hpp>

#include "kernels/cuda/segment_attention_device.cuh"
#include "kernels/cuda/segment_attention_launch.h"

namespace sprocket::kernels::cuda {

// Of the thread's rows, lane / 4 + {0, 8}. Each of the four threads of a row has its own part of
// the sum.
struct RowState {
  float maximum[2];  // of the scores in base 2
  float sum[2];
};

template <class Sums>
inline constexpr int kColumnGroups = decltype(cute::size(Sums{}))::value / 4;  // of 8 columns

__device__ inline void store_pair(float* to, float x, float y) {
  *reinterpret_cast<float2*>(to) = make_float2(x, y);
}
template <class T>
__device__ void store_pair(T* to, float x, float y) {
  const cutlass::NumericArrayConverter<T, float, 2> convert;
  *reinterpret_cast<cutlass::Array<T, 2>*>(to) = convert({x, y});
}

// Scores of the first `rows` keys of a tile become weights relative to the row's maximum, the
// others 0. `factors` is what former weights and outputs of the two rows shrink by.
template <class Scores>
__device__ void softmax(Scores& scores, RowState& state, float (&factors)[2], int rows,
                        float scale2, float bias2) {
  constexpr int kCount = kColumnGroups<Scores>;
  if (rows < 8 * kCount) {
    const int first = threadIdx.x % 4 * 2;
    CUTE_UNROLL
    for (int n = 0; n < kCount; ++n) {
      CUTE_UNROLL
      for (int i = 0; i < 4; ++i) {
        if (8 * n + first + i % 2 >= rows) scores(4 * n + i) = negative_infinity();
      }
    }
  }
  CUTE_UNROLL
  for (int r = 0; r < 2; ++r) {
    float maximum = negative_infinity();
    CUTE_UNROLL
    for (int n = 0; n < kCount; ++n) {
      maximum = fmaxf(maximum, fmaxf(scores(4 * n + 2 * r), scores(4 * n + 2 * r + 1)));
    }
    maximum = fmaxf(maximum, __shfl_xor_sync(0xffffffffu, maximum, 1));
    maximum = fmaxf(maximum, __shfl_xor_sync(0xffffffffu, maximum, 2));
    const float former = state.maximum[r];
    const float latter = fmaxf(former, fmaf(maximum, scale2, bias2));
    // Weights of a row that has seen nothing but -inf are 0, not 0/0.
    const float reference = latter == negative_infinity() ? 0 : latter;
    const float offset = bias2 - reference;
    float sum = 0;
    CUTE_UNROLL
    for (int n = 0; n < kCount; ++n) {
      CUTE_UNROLL
      for (int i = 2 * r; i < 2 * r + 2; ++i) {
        const float weight = exp2_fast(fmaf(scores(4 * n + i), scale2, offset));
        scores(4 * n + i) = weight;
        sum += weight;
      }
    }
    factors[r] = exp2_fast(former - reference);
    state.maximum[r] = latter;
    state.sum[r] = fmaf(state.sum[r], factors[r], sum);
  }
}

// The output follows a rising maximum.
template <class Output>
__device__ void rescale(Output& output, const float (&factors)[2]) {
  CUTE_UNROLL
  for (int n = 0; n < kColumnGroups<Output>; ++n) {
    CUTE_UNROLL
    for (int i = 0; i < 4; ++i) output(4 * n + i) *= factors[i / 2];
  }
}

// From nothing, or from a former pass: its output with the weight that its LSE gives it. `row` is
// the thread's first row in the query block.
template <class Output>
__device__ void start_rows(const ForwardArguments& arguments, const QueryBlock& query,
                           int64_t statistics, int row, Output& output, RowState& state) {
  cute::clear(output);
  const int lane = threadIdx.x % 32;
  CUTE_UNROLL
  for (int r = 0; r < 2; ++r) {
    state.maximum[r] = negative_infinity();
    state.sum[r] = 0;
    if (!arguments.accumulate || row + 8 * r >= query.used) continue;
    const float lse = arguments.lse[statistics + row + 8 * r];
    if (lse == negative_infinity()) continue;
    state.maximum[r] = lse * kLog2E;
    const float weight = exp2_fast(fmaf(lse, kLog2E, -state.maximum[r]));
    if (lane % 4 == 0) state.sum[r] = weight;
    const float* from =
        row_of<const float>(arguments.out, query.batch, query.first + row + 8 * r, query.head) +
        lane % 4 * 2;
    CUTE_UNROLL
    for (int n = 0; n < kColumnGroups<Output>; ++n) {
      const float2 pair = *reinterpret_cast<const float2*>(from + 8 * n);
      output(4 * n + 2 * r) = pair.x * weight;
      output(4 * n + 2 * r + 1) = pair.y * weight;
    }
  }
}

template <class T, class Output>
__device__ void finish_rows(const ForwardArguments& arguments, const QueryBlock& query,
                            int64_t statistics, int first, const Output& output,
                            const RowState& state) {
  constexpr int kCount = kColumnGroups<Output>;
  const int lane = threadIdx.x % 32;
  CUTE_UNROLL
  for (int r = 0; r < 2; ++r) {
    float sum = state.sum[r];
    sum += __shfl_xor_sync(0xffffffffu, sum, 1);
    sum += __shfl_xor_sync(0xffffffffu, sum, 2);
    const int row = first + 8 * r;
    if (row >= query.used) continue;
    const float inverse = sum == 0 ? 0 : 1 / sum;
    if (arguments.out_is_float) {
      float* to = row_of<float>(arguments.out, query.batch, query.first + row, query.head);
      CUTE_UNROLL
      for (int n = 0; n < kCount; ++n) {
        store_pair(to + 8 * n + lane % 4 * 2, output(4 * n + 2 * r) * inverse,
                   output(4 * n + 2 * r + 1) * inverse);
      }
    } else {
      T* to = row_of<T>(arguments.out, query.batch, query.first + row, query.head);
      CUTE_UNROLL
      for (int n = 0; n < kCount; ++n) {
        store_pair(to + 8 * n + lane % 4 * 2, output(4 * n + 2 * r) * inverse,
                   output(4 * n + 2 * r + 1) * inverse);
      }
    }
    if (lane % 4 == 0) {
      arguments.lse[statistics + row] =
          sum == 0 ? negative_infinity() : (state.maximum[r] + log2f(sum)) * kLn2;
    }
  }
}

// Rows [first, last) of the query block attend to nothing. By `threads` threads of which this is
// one.
template <class T, int kHeadDim>
__device__ void clear_rows(const ForwardArguments& arguments, const QueryBlock& query,
                           int64_t statistics, int first, int last, int thread, int threads) {
  constexpr int kPairs = kHeadDim / 2;
  for (int i = thread; i < (last - first) * kPairs; i += threads) {
    const int64_t row = query.first + first + i / kPairs;
    const int column = i % kPairs * 2;
    if (arguments.out_is_float) {
      store_pair(row_of<float>(arguments.out, query.batch, row, query.head) + column, 0, 0);
    } else {
      store_pair(row_of<T>(arguments.out, query.batch, row, query.head) + column, 0, 0);
    }
  }
  for (int row = first + thread; row < last; row += threads) {
    arguments.lse[statistics + row] = negative_infinity();
  }
}

}  // namespace sprocket::kernels::cuda
