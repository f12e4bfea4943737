// Where the two passes of a backward of every family meet: the slots of pairs
// (segment_attention_tiles.h), which the first leaves and the second sums up.
#pragma once

#include <cutlass/array.h>

#include <cute/tensor.hpp>

#include "kernels/cuda/segment_attention_device.cuh"
#include "kernels/cuda/segment_attention_launch.h"

namespace sprocket::kernels::cuda {

// The group's first pair, whose slot is the first.
__device__ inline int32_t first_pair(const BackwardArguments& arguments) {
  const SegmentAttentionProblem& problem = arguments.problem;
  return problem.table.row_offsets[int64_t{problem.first_head} * problem.table.query_blocks +
                                   arguments.first_query_block];
}

// Rounded gradients of the scores, in the order of the sums, to the pair's slot, columns exchanged:
// 16 bytes for each row and 32 columns.
template <class Rounded, class T>
__device__ void store_slot(const Rounded& dscores, T* slot, int first, int query_rows) {
  constexpr int kCount = decltype(cute::size(Rounded{}))::value / 16;
  CUTE_UNROLL
  for (int group = 0; group < kCount; ++group) {
    CUTE_UNROLL
    for (int r = 0; r < 2; ++r) {
      cutlass::Array<T, 8> piece;
      CUTE_UNROLL
      for (int n = 0; n < 4; ++n) {
        CUTE_UNROLL
        for (int i = 0; i < 2; ++i) piece[2 * n + i] = dscores(16 * group + 4 * n + 2 * r + i);
      }
      *reinterpret_cast<cutlass::AlignedArray<T, 8>*>(slot + (first + 8 * r) * query_rows +
                                                      32 * group + threadIdx.x % 4 * 8) =
          *reinterpret_cast<const cutlass::AlignedArray<T, 8>*>(&piece);
    }
  }
}

// Adds sums of dS K to dq. They lie as segment_attention_rows.cuh says; their rows are columns of
// slots, of which `first` is the thread's first.
template <class Sums>
__device__ void add_to_queries(const BackwardArguments& arguments, const QueryBlock& query,
                               int first, const Sums& sums) {
  constexpr int kCount = decltype(cute::size(Sums{}))::value / 4;
  const float scale = arguments.problem.scale;
  CUTE_UNROLL
  for (int r = 0; r < 2; ++r) {
    const int row = exchanged_column(first + 8 * r);
    if (row >= query.used) continue;
    float* to = row_of<float>(arguments.dq, query.batch, query.first + row, query.head);
    CUTE_UNROLL
    for (int n = 0; n < kCount; ++n) {
      float2* pair = reinterpret_cast<float2*>(to + 8 * n + threadIdx.x % 4 * 2);
      const float2 former = *pair;
      *pair = make_float2(fmaf(sums(4 * n + 2 * r), scale, former.x),
                          fmaf(sums(4 * n + 2 * r + 1), scale, former.y));
    }
  }
}

}  // namespace sprocket::kernels::cuda
