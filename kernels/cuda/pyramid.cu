#include "kernels/cuda/pyramid.h"

#include "kernels/cuda/element_types.cuh"
#include "kernels/cuda/half_warp.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/row_vectors.cuh"

namespace sprocket::kernels::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kLanes = 32;

// Arrays in parameters that are indexed at run time are __grid_constant__: otherwise every thread
// has a copy of them in local memory.

// A block of one head; blockIdx.x counts blocks, head by head.
struct BlockOfHead {
  int64_t batch, head, first;
  int block, tokens;
  __device__ BlockOfHead(const DevicePyramidRows& pyramid, int heads) {
    const int64_t batch_head = blockIdx.x / pyramid.blocks;
    block = static_cast<int>(blockIdx.x % pyramid.blocks);
    batch = batch_head / heads;
    head = batch_head % heads;
    first = pyramid.block_offsets[block];
    tokens = static_cast<int>(pyramid.block_offsets[block + 1] - first);
  }
};

// Tokens of group `group` of a level.
struct Group {
  int first, count;
  __device__ Group(int group, int width, int tokens)
      : first(group * width), count(min(width, tokens - group * width)) {}
};

__device__ int groups_of(int tokens, int width) { return (tokens + width - 1) / width; }

// A warp for each extended row.
template <class T>
__global__ void __launch_bounds__(kThreads)
    expand_kernel(HeadView<const T> x, const __grid_constant__ DevicePyramidRows pyramid, int heads,
                  int head_dim, HeadView<T> extended) {
  const BlockOfHead at(pyramid, heads);
  const int warp = threadIdx.x / kLanes, lane = threadIdx.x % kLanes;
  int64_t row = pyramid.first_rows[at.block];
  for (int level = 0; level < pyramid.levels; ++level) {
    const int width = pyramid.widths[level], groups = groups_of(at.tokens, width);
    for (int g = warp; g < groups; g += kThreads / kLanes) {
      const Group group(g, width, at.tokens);
      const T* from = x.row(at.batch, at.first + group.first, at.head);
      T* to = extended.row(at.batch, row + g, at.head);
      for (int d = lane; d < head_dim; d += kLanes) {
        if (width == 1) {
          to[d] = from[d];
          continue;
        }
        float sum = 0;
        for (int i = 0; i < group.count; ++i) sum += to_float(from[i * x.row_stride + d]);
        to[d] = T(sum / static_cast<float>(group.count));
      }
    }
    row += groups;
  }
}

// A warp for each token.
__global__ void __launch_bounds__(kThreads)
    add_gradient_kernel(HeadView<const float> d_extended,
                        const __grid_constant__ DevicePyramidRows pyramid, int heads, int head_dim,
                        HeadView<float> dx) {
  const BlockOfHead at(pyramid, heads);
  const int warp = threadIdx.x / kLanes, lane = threadIdx.x % kLanes;
  for (int token = warp; token < at.tokens; token += kThreads / kLanes) {
    float* to = dx.row(at.batch, at.first + token, at.head);
    for (int d = lane; d < head_dim; d += kLanes) {
      float sum = to[d];
      int64_t row = pyramid.first_rows[at.block];
      for (int level = 0; level < pyramid.levels; ++level) {
        const int width = pyramid.widths[level];
        const Group group(token / width, width, at.tokens);
        const float* from = d_extended.row(at.batch, row + token / width, at.head);
        sum += from[d] / static_cast<float>(group.count);
        row += groups_of(at.tokens, width);
      }
      to[d] = sum;
    }
  }
}

template <class T>
__device__ float dot_of_half_warp(const T* x, const T* y, int head_dim) {
  float sum = 0;
  for (int d = threadIdx.x % kHalfWarp; d < head_dim; d += kHalfWarp) {
    sum = __fmaf_rn(to_float(x[d]), to_float(y[d]), sum);
  }
  return sum_of_half_warp(sum);
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    caps_kernel(HeadView<const T> k, const __grid_constant__ DevicePyramidRows pyramid,
                int largest_block, const __grid_constant__ CapThresholds thresholds, int heads,
                int head_dim, uint8_t* caps) {
  extern __shared__ float norms[];
  float* cosines = norms + largest_block;
  __shared__ int passed;
  constexpr int kAtOnce = kThreads / kHalfWarp;
  const BlockOfHead at(pyramid, heads);
  const T* x = k.row(at.batch, at.first, at.head);
  const int half = threadIdx.x / kHalfWarp;
  const bool writes = threadIdx.x % kHalfWarp == 0;
  for (int first = 0; first < at.tokens; first += kAtOnce) {  // whole warps, as shuffles need
    const int i = first + half;
    const T* row = x + min(i, at.tokens - 1) * k.row_stride;
    const float square = dot_of_half_warp(row, row, head_dim);
    if (writes && i < at.tokens) norms[i] = __fsqrt_rn(square);
  }
  if (threadIdx.x == 0) passed = 0;
  __syncthreads();
  int cap = 1;
  for (int level = pyramid.levels; level > 1 && cap == 1 && at.tokens > 0; --level) {
    const int width = pyramid.widths[level - 1], groups = groups_of(at.tokens, width);
    for (int first = 0; first < groups; first += kAtOnce) {
      const int g = first + half;
      const Group group(min(g, groups - 1), width, at.tokens);
      const int last = group.first + group.count - 1;
      const float product =
          dot_of_half_warp(x + group.first * k.row_stride, x + last * k.row_stride, head_dim);
      if (!writes || g >= groups) continue;
      const float scale = __fmul_rn(norms[group.first], norms[last]);
      cosines[g] = last == group.first ? 1.0f : scale != 0 ? __fdiv_rn(product, scale) : 0.0f;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      double sum = 0;
      for (int g = 0; g < groups; ++g) sum = __dadd_rn(sum, cosines[g]);
      passed = sum / groups > thresholds.of_level[level - 2];
    }
    __syncthreads();
    if (passed != 0) cap = level;
    __syncthreads();
  }
  if (threadIdx.x == 0) caps[blockIdx.x] = static_cast<uint8_t>(cap);
}

// A warp for each slot.
template <class T>
__global__ void __launch_bounds__(kThreads)
    gather_kernel(HeadView<const T> x, const int32_t* rows, int64_t slots, int batch, int heads,
                  int head_dim, float* out) {
  const int64_t warp = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) / kLanes;
  const int64_t slot = warp % slots, head = warp / slots % heads, b = warp / slots / heads;
  if (b >= batch) return;
  const int32_t row = rows[head * slots + slot];
  for (int d = threadIdx.x % kLanes; d < head_dim; d += kLanes) {
    out[warp * head_dim + d] = row < 0 ? 0.0f : to_float(x.row(b, row, head)[d]);
  }
}

// A block of threads for every block of every head.
unsigned grid_for(const DevicePyramidRows& pyramid, int batch, int heads, int head_dim) {
  SPROCKET_CHECK(batch >= 0 && heads >= 0 && pyramid.blocks >= 0 && head_dim >= 1,
                 "a pyramid of [{}, {}, {}, {}]", batch, heads, pyramid.blocks, head_dim);
  SPROCKET_CHECK(pyramid.levels >= 1 && pyramid.levels <= kMostLevels && pyramid.widths[0] == 1,
                 "expected 1 to {} levels of which the first has width 1, found {} from width {}",
                 kMostLevels, pyramid.levels, pyramid.widths[0]);
  return grid_of(int64_t{batch} * heads * pyramid.blocks, 1);
}

}  // namespace

void expand_pyramid(HeadView<const void> x, DType dtype, const DevicePyramidRows& pyramid,
                    int batch, int heads, int head_dim, HeadView<void> extended,
                    StreamView stream) {
  const unsigned grid = grid_for(pyramid, batch, heads, head_dim);
  with_element_type(dtype, [&](auto element) {
    using T = decltype(element);
    if (grid == 0) return;
    expand_kernel<T><<<grid, kThreads, 0, stream_of(stream)>>>(typed<T>(x), pyramid, heads,
                                                               head_dim, typed<T>(extended));
    check_launch("expand_pyramid");
  });
}

void add_pyramid_gradient(HeadView<const float> d_extended, const DevicePyramidRows& pyramid,
                          int batch, int heads, int head_dim, HeadView<float> dx,
                          StreamView stream) {
  const unsigned grid = grid_for(pyramid, batch, heads, head_dim);
  if (grid == 0) return;
  add_gradient_kernel<<<grid, kThreads, 0, stream_of(stream)>>>(d_extended, pyramid, heads,
                                                                head_dim, dx);
  check_launch("add_pyramid_gradient");
}

void similarity_caps(HeadView<const void> k, DType dtype, const DevicePyramidRows& pyramid,
                     int largest_block, const CapThresholds& thresholds, int batch, int heads,
                     int head_dim, uint8_t* caps, StreamView stream) {
  const unsigned grid = grid_for(pyramid, batch, heads, head_dim);
  const int64_t bytes = 8 * int64_t{largest_block}, limit = shared_memory_limit() - 16;
  SPROCKET_CHECK(bytes <= limit, "blocks of {} tokens need {} bytes of shared memory, found {}",
                 largest_block, bytes, limit);
  with_element_type(dtype, [&](auto element) {
    using T = decltype(element);
    if (grid == 0) return;
    allow_shared_memory(caps_kernel<T>, bytes);
    caps_kernel<T><<<grid, kThreads, bytes, stream_of(stream)>>>(
        typed<T>(k), pyramid, largest_block, thresholds, heads, head_dim, caps);
    check_launch("similarity_caps");
  });
}

void gather_samples(HeadView<const void> x, DType dtype, const int32_t* rows, int64_t slots,
                    int batch, int heads, int head_dim, float* out, StreamView stream) {
  const unsigned grid = grid_of(batch * slots * heads, kThreads / kLanes);
  with_element_type(dtype, [&](auto element) {
    using T = decltype(element);
    if (grid == 0) return;
    gather_kernel<T><<<grid, kThreads, 0, stream_of(stream)>>>(typed<T>(x), rows, slots, batch,
                                                               heads, head_dim, out);
    check_launch("gather_samples");
  });
}

}  // namespace sprocket::kernels::cuda
