#include "kernels/cuda/coarse_attention.h"
#include "kernels/cuda/coarse_attention_tile.cuh"

// The pass over KV blocks is the pass over query blocks with the sides exchanged: a tile holds
// columns of S and dP as rows, and what is known of each query row comes from the first pass.

namespace sprocket::kernels::cuda {
namespace {

using row_tile::kLanes;
using row_tile::kThreads;
using row_tile::kWarps;

// Of a query row: p = exp(s - largest) * inverse, ds = p * (dp - delta).
struct RowState {
  float largest, inverse, delta;
};

// The combination in a fixed tree.
template <class Combine>
__device__ float reduce_warp(float value, Combine combine) {
#pragma unroll
  for (int distance = kLanes / 2; distance > 0; distance /= 2) {
    value = combine(value, __shfl_xor_sync(0xffffffffu, value, distance));
  }
  return value;
}

// s becomes p and dp becomes ds.
__device__ RowState differentiate(int lane, float* s, float* dp, int size) {
  const auto add = [](float a, float b) { return a + b; };
  float largest = -INFINITY;
  for (int j = lane; j < size; j += kLanes) largest = s[j] > largest ? s[j] : largest;
  largest = reduce_warp(largest, [](float a, float b) { return a > b ? a : b; });
  float sum = 0;
  for (int j = lane; j < size; j += kLanes) {
    s[j] = expf(s[j] - largest);
    sum += s[j];
  }
  const float inverse = 1.0f / reduce_warp(sum, add);
  float delta = 0;
  for (int j = lane; j < size; j += kLanes) {
    s[j] *= inverse;
    delta += s[j] * dp[j];
  }
  delta = reduce_warp(delta, add);
  for (int j = lane; j < size; j += kLanes) dp[j] = s[j] * (dp[j] - delta);
  return {largest, inverse, delta};
}

// Query rows: their states and dq.
template <int kRows>
__global__ void __launch_bounds__(kThreads, 2)
    query_kernel(CoarseView p, const float* dout, float* dqc, RowState* states) {
  extern __shared__ float4 shared[];
  const TileRows tile(p.query_blocks, kRows);
  const int64_t pitch = row_tile::row_pitch(p.kv_blocks);
  float* s = reinterpret_cast<float*>(shared);
  float* dp = s + kRows * pitch;
  float* stage = dp + kRows * pitch;
  const int64_t at = p.query(tile.batch_head, tile.first), keys = p.key(tile.batch_head, 0);
  row_tile::multiply_rows<kRows>(
      p.qc + at, tile.count, p.kc + keys, p.kv_blocks, p.head_dim, stage,
      [&](int i, int j, float sum) { s[i * pitch + j] = __fmul_rn(sum, p.scale); });
  row_tile::multiply_rows<kRows>(dout + at, tile.count, p.vc + keys, p.kv_blocks, p.head_dim, stage,
                                 [&](int i, int j, float sum) { dp[i * pitch + j] = sum; });
  for (int i = threadIdx.x / kLanes; i < tile.count; i += kWarps) {
    const int lane = threadIdx.x % kLanes;
    const RowState state = differentiate(lane, s + i * pitch, dp + i * pitch, p.kv_blocks);
    if (lane == 0) states[tile.batch_head * p.query_blocks + tile.first + i] = state;
  }
  __syncthreads();
  row_tile::combine_rows<kRows>(
      dp, pitch, p.kc + keys, p.kv_blocks, p.head_dim, [&](int i, int d, float sum) {
        if (i >= tile.count) return;
        dqc[at + static_cast<int64_t>(i) * p.head_dim + d] = sum * p.scale;
      });
}

// KV rows: dk and dv, sums over ascending query rows.
template <int kRows>
__global__ void __launch_bounds__(kThreads, 2)
    key_kernel(CoarseView p, const float* dout, const RowState* states, float* dkc, float* dvc) {
  extern __shared__ float4 shared[];
  const TileRows tile(p.kv_blocks, kRows);
  const int64_t pitch = row_tile::row_pitch(p.query_blocks);
  float* probability = reinterpret_cast<float*>(shared);
  float* ds = probability + kRows * pitch;
  float* stage = ds + kRows * pitch;
  const int64_t at = p.key(tile.batch_head, tile.first), queries = p.query(tile.batch_head, 0);
  const RowState* of_head = states + tile.batch_head * p.query_blocks;
  row_tile::multiply_rows<kRows>(
      p.kc + at, tile.count, p.qc + queries, p.query_blocks, p.head_dim, stage,
      [&](int i, int j, float sum) {
        const RowState state = of_head[j];
        probability[i * pitch + j] = expf(__fmul_rn(sum, p.scale) - state.largest) * state.inverse;
      });
  row_tile::multiply_rows<kRows>(p.vc + at, tile.count, dout + queries, p.query_blocks, p.head_dim,
                                 stage, [&](int i, int j, float sum) {
                                   ds[i * pitch + j] =
                                       probability[i * pitch + j] * (sum - of_head[j].delta);
                                 });
  row_tile::combine_rows<kRows>(probability, pitch, dout + queries, p.query_blocks, p.head_dim,
                                [&](int i, int d, float sum) {
                                  if (i >= tile.count) return;
                                  dvc[at + static_cast<int64_t>(i) * p.head_dim + d] = sum;
                                });
  row_tile::combine_rows<kRows>(
      ds, pitch, p.qc + queries, p.query_blocks, p.head_dim, [&](int i, int d, float sum) {
        if (i >= tile.count) return;
        dkc[at + static_cast<int64_t>(i) * p.head_dim + d] = sum * p.scale;
      });
}

}  // namespace

int64_t coarse_backward_workspace_bytes(const DeviceCoarseProblem& problem) {
  return static_cast<int64_t>(sizeof(RowState)) * problem.batch * problem.heads *
         problem.query_blocks;
}

void coarse_attend_backward(const DeviceCoarseProblem& problem, const float* dout, float* dqc,
                            float* dkc, float* dvc, void* workspace, StreamView stream) {
  check_problem(problem);
  SPROCKET_CHECK(problem.vc != nullptr, "gradients need vc");
  const int64_t heads = int64_t{problem.batch} * problem.heads;
  const CoarseView view(problem);
  RowState* states = static_cast<RowState*>(workspace);
  if (heads * problem.query_blocks > 0) {
    const TileShape shape =
        tile_shape(2 * row_tile::row_pitch(problem.kv_blocks), problem.kv_blocks);
    const auto kernel = shape.rows == 16  ? query_kernel<16>
                        : shape.rows == 8 ? query_kernel<8>
                                          : query_kernel<4>;
    allow_shared_memory(kernel, shape.bytes);
    kernel<<<grid_of(heads * grid_of(problem.query_blocks, shape.rows), 1), kThreads, shape.bytes,
             stream_of(stream)>>>(view, dout, dqc, states);
    check_launch("coarse_attend_backward: queries");
  }
  if (heads * problem.kv_blocks > 0) {
    const TileShape shape =
        tile_shape(2 * row_tile::row_pitch(problem.query_blocks), problem.query_blocks);
    const auto kernel = shape.rows == 16  ? key_kernel<16>
                        : shape.rows == 8 ? key_kernel<8>
                                          : key_kernel<4>;
    allow_shared_memory(kernel, shape.bytes);
    kernel<<<grid_of(heads * grid_of(problem.kv_blocks, shape.rows), 1), kThreads, shape.bytes,
             stream_of(stream)>>>(view, dout, states, dkc, dvc);
    check_launch("coarse_attend_backward: keys");
  }
}

}  // namespace sprocket::kernels::cuda
