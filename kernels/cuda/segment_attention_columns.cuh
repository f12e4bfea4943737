// What the key gradients of every family do with rows of a KV block. Scores are computed
// transposed, keys by queries; a warp has 16 keys, and its sums lie as segment_attention_rows.cuh
// says.
#pragma once

#include <cutlass/array.h>

#include <cute/tensor.hpp>

#include "kernels/cuda/segment_attention_device.cuh"
#include "kernels/cuda/segment_attention_launch.h"

namespace sprocket::kernels::cuda {

// A tile of a KV block.
struct KeyColumn {
  int batch_head, batch, head;
  int tile;  // of the block
  int rows;  // of the tile; 0 or less: none
  int64_t first_row;
  int buffer;
  float bias2;  // in base 2
};

__device__ inline KeyColumn locate_column(const SegmentAttentionProblem& problem, int batch_head,
                                          int block, int tile) {
  const DeviceKvBlock kv = kv_block(problem, batch_head, block);
  KeyColumn column;
  column.batch_head = batch_head;
  column.batch = batch_head / problem.table.heads;
  column.head = batch_head % problem.table.heads;
  column.tile = tile;
  column.rows = rows_of_tile(kv.rows, kKeyTileRows, tile);
  column.first_row = kv.first_row + int64_t{tile} * kKeyTileRows;
  column.buffer = kv.buffer;
  column.bias2 = kv.bias * kLog2E;
  return column;
}

// Places of the inverse table that list a KV block, of the group's query blocks.
struct ColumnList {
  int64_t first, last;
};

__device__ inline ColumnList column_list(const BackwardArguments& arguments, int batch_head,
                                         int block) {
  const DeviceTable& table = arguments.problem.table;
  const int64_t column = int64_t{batch_head} * table.kv_blocks + block;
  ColumnList list{arguments.inverse.column_offsets[column],
                  arguments.inverse.column_offsets[column + 1]};
  if (arguments.last_query_block - arguments.first_query_block < table.query_blocks) {
    const int32_t* ids = arguments.inverse.query_block;
    list.first = lower_bound(ids, list.first, list.last, arguments.first_query_block);
    list.last = lower_bound(ids, list.first, list.last, arguments.last_query_block);
  }
  return list;
}

// An LSE in base 2. Weights of a row without keys are 0: its LSE counts as +inf, and so does that
// of a row that does not exist.
__device__ inline float weight_base(float lse) {
  return lse == negative_infinity() ? -negative_infinity() : lse * kLog2E;
}

// Scores become weights, and dweights their gradient of the scores (without the scale). `first` is
// the thread's first key in the tile, `rows` how many keys it has; lse2 and delta are the queries'.
template <class Scores>
__device__ void differentiate(Scores& scores, Scores& dweights, const float* lse2,
                              const float* delta, int first, int rows, float scale2, float bias2) {
  constexpr int kCount = decltype(cute::size(Scores{}))::value / 4;
  CUTE_UNROLL
  for (int n = 0; n < kCount; ++n) {
    const int column = 8 * n + threadIdx.x % 4 * 2;
    const float2 bases = *reinterpret_cast<const float2*>(lse2 + column);
    const float2 pair = *reinterpret_cast<const float2*>(delta + column);
    const float offset[2] = {bias2 - bases.x, bias2 - bases.y};
    const float deltas[2] = {pair.x, pair.y};
    CUTE_UNROLL
    for (int i = 0; i < 4; ++i) {
      const bool valid = first + i / 2 * 8 < rows;
      const float weight = valid ? exp2_fast(fmaf(scores(4 * n + i), scale2, offset[i % 2])) : 0.0f;
      scores(4 * n + i) = weight;
      dweights(4 * n + i) = valid ? weight * (dweights(4 * n + i) - deltas[i % 2]) : 0.0f;
    }
  }
}

template <class Sums>
__device__ void add_to_rows(const DeviceRows<float>& to, const KeyColumn& column, int first,
                            const Sums& sums, float factor) {
  constexpr int kCount = decltype(cute::size(Sums{}))::value / 4;
  CUTE_UNROLL
  for (int r = 0; r < 2; ++r) {
    if (first + 8 * r >= column.rows) continue;
    float* row = row_of<float>(to, column.batch, column.first_row + first + 8 * r, column.head);
    CUTE_UNROLL
    for (int n = 0; n < kCount; ++n) {
      float2* pair = reinterpret_cast<float2*>(row + 8 * n + threadIdx.x % 4 * 2);
      const float2 former = *pair;
      *pair = make_float2(fmaf(sums(4 * n + 2 * r), factor, former.x),
                          fmaf(sums(4 * n + 2 * r + 1), factor, former.y));
    }
  }
}

}  // namespace sprocket::kernels::cuda
