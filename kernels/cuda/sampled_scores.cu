#include "kernels/cuda/sampled_scores.h"

#include "kernels/cuda/launch.h"
#include "kernels/cuda/row_select.cuh"
#include "kernels/cuda/row_tile.cuh"
#include "kernels/cuda/tile_shape.cuh"
#include "kernels/row_counts.h"
#include "kernels/score_key.h"

// The samples of a query block pass in groups of a tile's rows. A group goes over all keys once for
// the largest logit of every block and, where a softmax is asked for, once more for the sums.

namespace sprocket::kernels::cuda {
namespace {

using row_tile::kLanes;
using row_tile::kThreads;
using row_tile::kWarps;

constexpr float kLowest = -3.402823466e38f;

// E of a logit, 0 where it is no number.
__device__ float score_of(float logit, float top, float scale, float sum) {
  const float e = expf((logit - top) * scale) / sum;
  return e > 0 ? e : 0;
}

// sums[i] = sum over the keys in use of exp((a[i] . key - tops[i]) * scale)
template <int kRows>
__device__ void sum_exponentials(const DeviceSampledProblem& p, const float* a, int rows,
                                 const float* keys, int key_count, const float* tops, float* stage,
                                 float* sums) {
  using Place = row_tile::WarpPlace<kRows>;
  const Place at;
  const float scale = static_cast<float>(p.scale);
  float own[row_tile::kRowsOfWarp] = {};
  row_tile::multiply_rows<kRows>(a, rows, keys, key_count, p.head_dim, stage,
                                 [&](int i, int key, float logit) {
                                   const int block = key / p.samples;
                                   const int used = p.k_counts[p.prefix_blocks + block];
                                   if (key - block * p.samples >= used) return;
                                   own[i - at.row] += expf((logit - tops[i]) * scale);
                                 });
  float* of_sides = stage;  // [kRows][sides]
#pragma unroll
  for (int i = 0; i < row_tile::kRowsOfWarp; ++i) {
    float sum = own[i];
#pragma unroll
    for (int distance = kLanes / 2; distance > 0; distance /= 2) {
      sum += __shfl_xor_sync(kAllLanes, sum, distance);
    }
    if (at.lane == 0) of_sides[(at.row + i) * Place::kSides + at.side] = sum;
  }
  __syncthreads();
  if (threadIdx.x < kRows) {
    float sum = 0;
    for (int side = 0; side < Place::kSides; ++side) {
      sum += of_sides[threadIdx.x * Place::kSides + side];
    }
    sums[threadIdx.x] = sum;
  }
  __syncthreads();
}

// blockIdx.x counts the video query blocks, head by head.
template <int kRows>
__global__ void __launch_bounds__(kThreads, 2)
    score_kernel(DeviceSampledProblem p, int prefix_rows, float* scores) {
  extern __shared__ float4 shared[];
  const int video = p.kv_blocks - p.prefix_blocks, rows_of_head = p.query_blocks - prefix_rows;
  const int64_t batch_head = blockIdx.x / rows_of_head;
  const int block = prefix_rows + static_cast<int>(blockIdx.x % rows_of_head);
  const int64_t row = batch_head * p.query_blocks + block;
  const int64_t pitch = row_tile::row_pitch(video);
  uint32_t* maxima = reinterpret_cast<uint32_t*>(shared);  // [kRows] keys of logits, by block
  float* stage = reinterpret_cast<float*>(maxima + kRows * pitch);
  float* tops = stage + row_tile::stage_floats(kRows);
  float* sums = tops + kRows;
  const float* queries = p.q + row * p.samples * p.head_dim;
  const float* keys = p.k + (batch_head * p.kv_blocks + p.prefix_blocks) * p.samples * p.head_dim;
  const int key_count = video * p.samples, query_count = p.q_counts[block];
  const int warp = threadIdx.x / kLanes, lane = threadIdx.x % kLanes;
  float* to = scores + row * video;
  for (int j = threadIdx.x; j < video; j += kThreads) to[j] = 0;

  for (int first = 0; first < query_count; first += kRows) {
    const int rows = min(kRows, query_count - first);
    const float* a = queries + static_cast<int64_t>(first) * p.head_dim;
    const uint32_t lowest = ordered_bits(-INFINITY);
    for (int i = threadIdx.x; i < kRows * pitch; i += kThreads) maxima[i] = lowest;
    if (threadIdx.x < kRows) sums[threadIdx.x] = 1;
    __syncthreads();
    row_tile::multiply_rows<kRows>(a, rows, keys, key_count, p.head_dim, stage,
                                   [&](int i, int key, float logit) {
                                     const int j = key / p.samples;
                                     if (key - j * p.samples >= p.k_counts[p.prefix_blocks + j]) {
                                       return;
                                     }
                                     // The largest, in any order; a NaN is below all.
                                     atomicMax(&maxima[i * pitch + j], ordered_bits(logit));
                                   });
    for (int i = warp; i < kRows; i += kWarps) {
      uint32_t top = 0;
      for (int j = lane; j < video; j += kLanes) top = max(top, maxima[i * pitch + j]);
      top = __reduce_max_sync(kAllLanes, top);
      if (lane == 0) tops[i] = fmaxf(value_of_ordered(top), kLowest);
    }
    __syncthreads();
    if (p.score == SampledScore::kSoftmax) {
      sum_exponentials<kRows>(p, a, rows, keys, key_count, tops, stage, sums);
    }
    for (int j = threadIdx.x; j < video; j += kThreads) {
      float largest = to[j];
      for (int i = 0; i < rows; ++i) {
        largest = fmaxf(largest, score_of(value_of_ordered(maxima[i * pitch + j]), tops[i],
                                          static_cast<float>(p.scale), sums[i]));
      }
      to[j] = largest;
    }
    __syncthreads();
  }
}

}  // namespace

void sampled_scores(const DeviceSampledProblem& p, float* scores, StreamView stream) {
  SPROCKET_CHECK(p.samples >= 1 && p.head_dim >= 1 && p.scale > 0,
                 "{} samples of dimension {}, scale {}", p.samples, p.head_dim, p.scale);
  SPROCKET_CHECK(p.prefix_blocks >= 0 && p.prefix_blocks <= p.kv_blocks, "{} prefix blocks of {}",
                 p.prefix_blocks, p.kv_blocks);
  const int video = p.kv_blocks - p.prefix_blocks;
  SPROCKET_CHECK(int64_t{video} * p.samples < (int64_t{1} << 31), "{} blocks of {} samples", video,
                 p.samples);
  const int prefix_rows =
      static_cast<int>(prefix_rows_of(p.prefix_blocks, p.first_query_block, p.query_blocks));
  const unsigned grid = grid_of(int64_t{p.batch} * p.heads * (p.query_blocks - prefix_rows), 1);
  if (grid == 0 || video == 0) return;
  const TileShape shape = tile_shape(row_tile::row_pitch(video) + 2, video);
  const auto kernel = shape.rows == 16  ? score_kernel<16>
                      : shape.rows == 8 ? score_kernel<8>
                                        : score_kernel<4>;
  allow_shared_memory(kernel, shape.bytes);
  kernel<<<grid, kThreads, shape.bytes, stream_of(stream)>>>(p, prefix_rows, scores);
  check_launch("sampled_scores");
}

}  // namespace sprocket::kernels::cuda
