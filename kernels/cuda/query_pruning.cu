#include "kernels/cuda/query_pruning.h"

#include <climits>

#include "kernels/cuda/element_types.cuh"
#include "kernels/cuda/half_warp.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/row_vectors.cuh"
#include "kernels/score_key.h"

namespace sprocket::kernels::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kWords = 5;  // of shared memory for each token

// A block of one head; blockIdx.x counts blocks, head by head.
struct BlockOfHead {
  int64_t batch_head, batch, head;
  int block;
  __device__ BlockOfHead(int query_blocks, int heads) {
    batch_head = blockIdx.x / query_blocks;
    block = static_cast<int>(blockIdx.x % query_blocks);
    batch = batch_head / heads;
    head = batch_head % heads;
  }
};

// What the threads of a block of tokens share.
struct BlockMemory {
  float *similarity, *square;
  int *window, *keeps, *kept, *redundant;
  __device__ BlockMemory(int32_t* words, int tokens) {
    similarity = reinterpret_cast<float*>(words);
    square = similarity + tokens;
    window = words + 2 * tokens;
    keeps = words + 3 * tokens;
    kept = words + 4 * tokens;
    redundant = words + 5 * tokens;
  }
};

// similarity[i] of rows i and partner[i], 0 for no partner (-1).
template <class T>
__device__ void compare(const T* rows, int64_t stride, int head_dim, const int32_t* partner,
                        int tokens, const BlockMemory& memory) {
  const int lane = threadIdx.x % kHalfWarp;
  constexpr int kRowsAtOnce = kThreads / kHalfWarp;
  for (int first = 0; first < tokens; first += kRowsAtOnce) {  // whole warps, as shuffles need
    const int i = first + static_cast<int>(threadIdx.x) / kHalfWarp;
    const int own = min(i, tokens - 1), other = partner[own] < 0 ? own : partner[own];
    const T* x = rows + own * stride;
    const T* y = rows + other * stride;
    float dot = 0, square = 0;
    for (int d = lane; d < head_dim; d += kHalfWarp) {
      const float value = to_float(x[d]);
      dot = __fmaf_rn(value, to_float(y[d]), dot);
      square = __fmaf_rn(value, value, square);
    }
    dot = sum_of_half_warp(dot);
    square = sum_of_half_warp(square);
    if (lane != 0 || i >= tokens) continue;
    memory.similarity[i] = partner[i] < 0 ? 0.0f : dot;
    memory.square[i] = square;
  }
  __syncthreads();
  for (int i = threadIdx.x; i < tokens; i += kThreads) {
    if (partner[i] < 0) continue;
    const float own = memory.square[i], other = memory.square[partner[i]];
    const float size = __fmul_rn(__fsqrt_rn(own), __fsqrt_rn(other));
    memory.similarity[i] = own == 0 || other == 0 ? 0.0f : __fdiv_rn(memory.similarity[i], size);
  }
  __syncthreads();
}

// By one thread, in the order of the tokens.
__device__ bool is_redundant(const float* similarity, const int32_t* previous, int tokens,
                             double threshold) {
  float sum = 0;
  int pairs = 0;
  for (int i = 0; i < tokens; ++i) {
    if (previous[i] < 0) continue;
    sum += similarity[i];
    ++pairs;
  }
  return pairs > 0 && static_cast<double>(sum / static_cast<float>(pairs)) > threshold;
}

// Smaller for a token that is kept before another one of its window.
__device__ uint64_t key_of(const float* similarity, int i) {
  return ascending_key<float>(ordered_bits(similarity[i]), static_cast<uint32_t>(i));
}

__device__ int64_t distance_of(const DevicePruningLayout& layout, int64_t first, int a, int b) {
  switch (layout.recovery) {
    case PruningRecovery::kNearestPosition: {
      const int32_t* x = layout.positions + 3 * (first + a);
      const int32_t* y = layout.positions + 3 * (first + b);
      int64_t distance = 0;
      for (int axis = 0; axis < 3; ++axis) {
        const int64_t difference = int64_t{x[axis]} - y[axis];
        distance += difference * difference;
      }
      return distance;
    }
    case PruningRecovery::kNearestIndex:
      return a > b ? a - b : b - a;
  }
  return 0;
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    prune_kernel(HeadView<const T> q, DevicePruningLayout layout, int heads, int head_dim,
                 DeviceQueryPruning to) {
  extern __shared__ int32_t words[];
  const BlockOfHead at(layout.query_blocks, heads);
  const int64_t first = layout.token_offsets[at.block], first_row = layout.offsets[at.block];
  const int tokens = static_cast<int>(layout.token_offsets[at.block + 1] - first);
  const int capacity = static_cast<int>(layout.offsets[at.block + 1] - first_row);
  int32_t* rows = to.rows + at.batch_head * layout.query_blocks + at.block;
  int32_t* kept = to.kept + at.batch_head * layout.kept_rows + first_row;
  int32_t* source = to.source + at.batch_head * layout.tokens + first;
  if (tokens == 0 || layout.centre[first] < 0) {  // keeps everything
    if (threadIdx.x == 0) *rows = tokens;
    for (int i = threadIdx.x; i < tokens; i += kThreads) {
      kept[i] = static_cast<int32_t>(first + i);
      source[i] = static_cast<int32_t>(first_row + i);
    }
    return;
  }
  const BlockMemory memory(words, layout.largest_block);
  const T* x = q.row(at.batch, first, at.head);
  if (threadIdx.x == 0) *memory.redundant = 0;
  if (layout.previous != nullptr) {
    compare(x, q.row_stride, head_dim, layout.previous + first, tokens, memory);
    if (threadIdx.x == 0) {
      *memory.redundant = is_redundant(memory.similarity, layout.previous + first, tokens,
                                       layout.redundancy_threshold);
    }
    __syncthreads();
  }
  for (int i = threadIdx.x; i < tokens; i += kThreads) memory.window[i] = layout.window[first + i];
  compare(x, q.row_stride, head_dim, layout.centre + first, tokens, memory);
  const int32_t* keep = *memory.redundant != 0 ? layout.keep_if_redundant : layout.keep;
  for (int i = threadIdx.x; i < tokens; i += kThreads) {
    const uint64_t key = key_of(memory.similarity, i);
    int before = 0;
    for (int j = 0; j < tokens; ++j) {
      before += memory.window[j] == memory.window[i] && key_of(memory.similarity, j) < key;
    }
    memory.keeps[i] = before < keep[memory.window[i]];
  }
  __syncthreads();
  int count = 0;
  for (int i = 0; i < tokens; ++i) count += memory.keeps[i];
  for (int i = threadIdx.x; i < tokens; i += kThreads) {
    if (memory.keeps[i] == 0) continue;
    int place = 0;
    for (int j = 0; j < i; ++j) place += memory.keeps[j];
    memory.kept[place] = i;
    kept[place] = static_cast<int32_t>(first + i);
    source[i] = static_cast<int32_t>(first_row + place);
  }
  __syncthreads();
  for (int i = threadIdx.x; i < tokens; i += kThreads) {
    if (memory.keeps[i] != 0) continue;
    int64_t best = INT64_MAX;
    int nearest = 0;
    for (int j = 0; j < count; ++j) {
      const int64_t distance = distance_of(layout, first, i, memory.kept[j]);
      if (distance >= best) continue;
      best = distance;
      nearest = j;
    }
    source[i] = static_cast<int32_t>(first_row + nearest);
  }
  for (int i = count + static_cast<int>(threadIdx.x); i < capacity; i += kThreads) kept[i] = -1;
  if (threadIdx.x == 0) *rows = count;
}

// A warp for each row.
template <class T>
__global__ void __launch_bounds__(kThreads)
    gather_kernel(HeadView<const T> from, const int32_t* index, int64_t rows, int batch, int heads,
                  int head_dim, HeadView<T> to) {
  const int64_t warp = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) / 32;
  const int64_t head = warp % heads, row = warp / heads % rows, b = warp / heads / rows;
  if (b >= batch) return;
  const int32_t place = index[(b * heads + head) * rows + row];
  T* target = to.row(b, row, head);
  for (int d = threadIdx.x % 32; d < head_dim; d += 32) {
    target[d] = place < 0 ? T(0.0f) : from.row(b, place, head)[d];
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    means_kernel(HeadView<const T> kept, DevicePruningLayout layout, const int32_t* used, int heads,
                 int head_dim, float* means) {
  const BlockOfHead at(layout.query_blocks, heads);
  const int rows = used[blockIdx.x];
  const T* from = kept.row(at.batch, layout.offsets[at.block], at.head);
  for (int d = threadIdx.x; d < head_dim; d += kThreads) {
    float sum = 0;
    for (int row = 0; row < rows; ++row) sum += to_float(from[row * kept.row_stride + d]);
    means[static_cast<int64_t>(blockIdx.x) * head_dim + d] =
        rows > 0 ? sum / static_cast<float>(rows) : 0.0f;
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    recover_backward_kernel(HeadView<const T> dout, DevicePruningLayout layout,
                            const int32_t* sources, int heads, int head_dim, HeadView<T> dkept) {
  const BlockOfHead at(layout.query_blocks, heads);
  const int64_t first = layout.token_offsets[at.block], last = layout.token_offsets[at.block + 1];
  const int32_t* source = sources + at.batch_head * layout.tokens;
  for (int64_t row = layout.offsets[at.block]; row < layout.offsets[at.block + 1]; ++row) {
    for (int d = threadIdx.x; d < head_dim; d += kThreads) {
      float sum = 0;
      for (int64_t token = first; token < last; ++token) {
        if (source[token] == row) sum += to_float(dout.row(at.batch, token, at.head)[d]);
      }
      dkept.row(at.batch, row, at.head)[d] = T(sum);
    }
  }
}

__global__ void __launch_bounds__(kThreads)
    scatter_kernel(HeadView<const float> dkept, DevicePruningLayout layout,
                   DeviceQueryPruning pruning, int heads, int head_dim, HeadView<float> dq) {
  const BlockOfHead at(layout.query_blocks, heads);
  const int64_t first = layout.offsets[at.block];
  const int32_t* tokens = pruning.kept + at.batch_head * layout.kept_rows;
  for (int64_t row = first; row < first + pruning.rows[blockIdx.x]; ++row) {
    const float* from = dkept.row(at.batch, row, at.head);
    float* to = dq.row(at.batch, tokens[row], at.head);
    for (int d = threadIdx.x; d < head_dim; d += kThreads) to[d] += from[d];
  }
}

// A block of threads for every block of every head.
unsigned grid_for(const DevicePruningLayout& layout, int batch, int heads, int head_dim) {
  SPROCKET_CHECK(batch >= 0 && heads >= 0 && layout.query_blocks >= 0 && head_dim >= 1,
                 "query pruning of [{}, {}, {}, {}]", batch, heads, layout.query_blocks, head_dim);
  return grid_of(int64_t{batch} * heads * layout.query_blocks, 1);
}

}  // namespace

void prune_queries(HeadView<const void> q, DType dtype, const DevicePruningLayout& layout,
                   int batch, int heads, int head_dim, const DeviceQueryPruning& to,
                   StreamView stream) {
  const unsigned grid = grid_for(layout, batch, heads, head_dim);
  const int64_t bytes = 4 * (int64_t{kWords} * layout.largest_block + 1);
  const int64_t limit = shared_memory_limit();
  SPROCKET_CHECK(bytes <= limit, "blocks of {} tokens need {} bytes of shared memory, found {}",
                 layout.largest_block, bytes, limit);
  with_element_type(dtype, [&](auto element) {
    using T = decltype(element);
    if (grid == 0) return;
    allow_shared_memory(prune_kernel<T>, bytes);
    prune_kernel<T>
        <<<grid, kThreads, bytes, stream_of(stream)>>>(typed<T>(q), layout, heads, head_dim, to);
    check_launch("prune_queries");
  });
}

void gather_rows(HeadView<const void> from, DType dtype, const int32_t* index, int64_t rows,
                 int batch, int heads, int head_dim, HeadView<void> to, StreamView stream) {
  const unsigned grid = grid_of(batch * rows * heads, kThreads / 32);
  with_element_type(dtype, [&](auto element) {
    using T = decltype(element);
    if (grid == 0) return;
    gather_kernel<T><<<grid, kThreads, 0, stream_of(stream)>>>(typed<T>(from), index, rows, batch,
                                                               heads, head_dim, typed<T>(to));
    check_launch("gather_rows");
  });
}

void kept_means(HeadView<const void> kept, DType dtype, const DevicePruningLayout& layout,
                const DeviceQueryPruning& pruning, int batch, int heads, int head_dim, float* means,
                StreamView stream) {
  const unsigned grid = grid_for(layout, batch, heads, head_dim);
  with_element_type(dtype, [&](auto element) {
    using T = decltype(element);
    if (grid == 0) return;
    means_kernel<T><<<grid, kThreads, 0, stream_of(stream)>>>(typed<T>(kept), layout, pruning.rows,
                                                              heads, head_dim, means);
    check_launch("kept_means");
  });
}

void recover_rows_backward(HeadView<const void> dout, DType dtype,
                           const DevicePruningLayout& layout, const DeviceQueryPruning& pruning,
                           int batch, int heads, int head_dim, HeadView<void> dkept,
                           StreamView stream) {
  const unsigned grid = grid_for(layout, batch, heads, head_dim);
  with_element_type(dtype, [&](auto element) {
    using T = decltype(element);
    if (grid == 0) return;
    recover_backward_kernel<T><<<grid, kThreads, 0, stream_of(stream)>>>(
        typed<T>(dout), layout, pruning.source, heads, head_dim, typed<T>(dkept));
    check_launch("recover_rows_backward");
  });
}

void scatter_query_gradients(HeadView<const float> dkept, const DevicePruningLayout& layout,
                             const DeviceQueryPruning& pruning, int batch, int heads, int head_dim,
                             HeadView<float> dq, StreamView stream) {
  const unsigned grid = grid_for(layout, batch, heads, head_dim);
  if (grid == 0) return;
  scatter_kernel<<<grid, kThreads, 0, stream_of(stream)>>>(dkept, layout, pruning, heads, head_dim,
                                                           dq);
  check_launch("scatter_query_gradients");
}

}  // namespace sprocket::kernels::cuda
