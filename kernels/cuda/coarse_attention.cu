#include "kernels/cuda/coarse_attention.h"

#include "kernels/cuda/coarse_attention_tile.cuh"
#include "kernels/cuda/row_select.cuh"
#include "kernels/row_counts.h"
#include "kernels/score_key.h"

namespace sprocket::kernels::cuda {
namespace {

using row_tile::kLanes;
using row_tile::kThreads;
using row_tile::kWarps;

__device__ float sum_of_warp(float value) {
#pragma unroll
  for (int distance = kLanes / 2; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(kAllLanes, value, distance);
  }
  return value;
}

// Keys of a row become exp(S - largest); returns 1 / their sum.
__device__ float exponentiate(int lane, uint32_t* keys, int size) {
  uint32_t largest_key = 0;
  for (int j = lane; j < size; j += kLanes) largest_key = max(largest_key, keys[j]);
  const float largest = value_of_ordered(__reduce_max_sync(kAllLanes, largest_key));
  float sum = 0;
  for (int j = lane; j < size; j += kLanes) {
    const float e = expf(value_of_ordered(keys[j]) - largest);
    keys[j] = __float_as_uint(e);
    sum += e;
  }
  return 1.0f / sum_of_warp(sum);
}

// kv_block null: no selection; out null: no output.
template <int kRows>
__global__ void __launch_bounds__(kThreads, 2)
    select_kernel(CoarseView p, RowCounts counts, DeviceTableBuffers table, float* out) {
  extern __shared__ float4 shared[];
  const TileRows tile(p.query_blocks, kRows);
  const int64_t pitch = row_tile::row_pitch(p.kv_blocks);
  uint32_t* keys = reinterpret_cast<uint32_t*>(shared);
  float* stage = reinterpret_cast<float*>(keys + kRows * pitch);
  const int warp = threadIdx.x / kLanes, lane = threadIdx.x % kLanes;
  row_tile::multiply_rows<kRows>(p.qc + p.query(tile.batch_head, tile.first), tile.count,
                                 p.kc + p.key(tile.batch_head, 0), p.kv_blocks, p.head_dim, stage,
                                 [&](int i, int j, float sum) {
                                   keys[i * pitch + j] = ordered_bits(__fmul_rn(sum, p.scale));
                                 });
  if (table.kv_block != nullptr) {
    const int exempt = static_cast<int>(counts.exempt());
    const int64_t first_row = tile.batch_head * p.query_blocks + tile.first;
    for (int i = warp; i < tile.count; i += kWarps) {
      const int64_t offset = counts.offset(first_row + i);
      if (lane == 0) table.row_offsets[first_row + i] = static_cast<int32_t>(offset);
      int32_t* ids = table.kv_block + offset;
      if (tile.first + i < counts.prefix_rows) {
        list_range(lane, 0, p.kv_blocks, ids);
        continue;
      }
      list_range(lane, 0, exempt, ids);
      select_largest(lane, keys + i * pitch + exempt, p.kv_blocks - exempt,
                     static_cast<int>(counts.selected()), exempt, ids + exempt);
    }
    if (blockIdx.x == gridDim.x - 1 && threadIdx.x == 0) {
      const int64_t rows = first_row + tile.count;
      table.row_offsets[rows] = static_cast<int32_t>(counts.offset(rows));
    }
  }
  if (out == nullptr) return;
  float* inverses = stage;
  for (int i = warp; i < tile.count; i += kWarps) {
    const float inverse = exponentiate(lane, keys + i * pitch, p.kv_blocks);
    if (lane == 0) inverses[i] = inverse;
  }
  __syncthreads();
  float* to = out + p.query(tile.batch_head, tile.first);
  row_tile::combine_rows<kRows>(
      reinterpret_cast<const float*>(keys), pitch, p.vc + p.key(tile.batch_head, 0), p.kv_blocks,
      p.head_dim, [&](int i, int d, float sum) {
        if (i < tile.count) to[static_cast<int64_t>(i) * p.head_dim + d] = sum * inverses[i];
      });
}

RowCounts counts_of(const DeviceCoarseProblem& p, int k) {
  return {p.kv_blocks,
          p.prefix_blocks,
          k,
          p.prefix_rule,
          p.query_blocks,
          prefix_rows_of(p.prefix_blocks, p.first_query_block, p.query_blocks)};
}

int64_t rows_of(const DeviceCoarseProblem& p) {
  return static_cast<int64_t>(p.batch) * p.heads * p.query_blocks;
}

// rows_of(problem) > 0
void launch(const DeviceCoarseProblem& problem, int k, const DeviceTableBuffers& table, float* out,
            StreamView stream) {
  const TileShape shape = tile_shape(row_tile::row_pitch(problem.kv_blocks), problem.kv_blocks);
  const auto kernel = shape.rows == 16  ? select_kernel<16>
                      : shape.rows == 8 ? select_kernel<8>
                                        : select_kernel<4>;
  allow_shared_memory(kernel, shape.bytes);
  const unsigned grid = grid_of(
      int64_t{problem.batch} * problem.heads * grid_of(problem.query_blocks, shape.rows), 1);
  kernel<<<grid, kThreads, shape.bytes, stream_of(stream)>>>(CoarseView(problem),
                                                             counts_of(problem, k), table, out);
  check_launch("select_and_attend");
}

}  // namespace

int64_t selected_pairs(const DeviceCoarseProblem& problem, int k) {
  check_problem(problem);
  return problem.query_blocks == 0 ? 0 : counts_of(problem, k).offset(rows_of(problem));
}

DeviceTable select_and_attend(const DeviceCoarseProblem& problem, int k,
                              const DeviceTableBuffers& to, float* out, StreamView stream) {
  const int64_t pairs = selected_pairs(problem, k);
  SPROCKET_CHECK(out == nullptr || problem.vc != nullptr, "an output needs vc");
  SPROCKET_CHECK(pairs < (int64_t{1} << 31), "{} pairs, more than a table holds", pairs);
  const int64_t rows = rows_of(problem);
  const int video = problem.kv_blocks - problem.prefix_blocks;
  const bool has_video_rows =
      rows > 0 && problem.first_query_block + problem.query_blocks > problem.prefix_blocks;
  SPROCKET_CHECK(!has_video_rows || (k >= 1 && k <= video),
                 "expected 1 to {} selected blocks, found {}", video, k);
  if (rows == 0) {
    check_cuda(cudaMemsetAsync(to.row_offsets, 0, sizeof(int32_t), stream_of(stream)),
               "cudaMemsetAsync");
  } else {
    launch(problem, k, to, out, stream);
  }
  return {problem.batch, problem.heads,  problem.query_blocks, problem.kv_blocks,
          pairs,         to.row_offsets, to.kv_block};
}

void coarse_attend(const DeviceCoarseProblem& problem, float* out, StreamView stream) {
  check_problem(problem);
  SPROCKET_CHECK(problem.vc != nullptr, "an output needs vc");
  if (rows_of(problem) > 0) launch(problem, 0, {}, out, stream);
}

}  // namespace sprocket::kernels::cuda
