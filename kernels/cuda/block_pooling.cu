#include "kernels/cuda/block_pooling.h"

#include <type_traits>

#include "kernels/cuda/element_types.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/row_vectors.cuh"

namespace sprocket::kernels::cuda {
namespace {

constexpr int kThreads = 256;

// Where the rows of piece `index` are.
struct Pieces {
  const int64_t* offsets;
  int64_t count;
  int parts;           // of a block
  int64_t piece_rows;  // of the pieces before the last one; not looked at for one part

  __device__ int64_t first(int64_t index) const {
    const int64_t begin = offsets[index / parts] + index % parts * piece_rows;
    const int64_t end = offsets[index / parts + 1];
    return begin < end ? begin : end;
  }
  __device__ int64_t last(int64_t index) const {
    const int64_t end = offsets[index / parts + 1];
    if (parts == 1) return end;
    const int64_t piece_end = first(index) + piece_rows;
    return piece_end < end ? piece_end : end;
  }
};

// A thread's kVector channels; heads side by side, since they share pages.
struct Place {
  int64_t batch, piece, head, channel;
  bool exists;
};

template <int kVector>
__device__ Place place_of_thread(int64_t batch, int64_t pieces, int64_t heads, int64_t head_dim) {
  int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t vectors = head_dim / kVector;
  Place place{};
  place.exists = index < batch * pieces * heads * vectors;
  place.channel = index % vectors * kVector;
  index /= vectors;
  place.head = index % heads;
  index /= heads;
  place.piece = index % pieces;
  place.batch = index / pieces;
  return place;
}

template <class T, int kVector>
__global__ void __launch_bounds__(kThreads)
    pool_kernel(HeadView<const T> x, Pieces pieces, int batch, int heads, int head_dim,
                float* means) {
  const Place at = place_of_thread<kVector>(batch, pieces.count, heads, head_dim);
  if (!at.exists) return;
  const int64_t first = pieces.first(at.piece), rows = pieces.last(at.piece) - first;
  const T* from = x.row(at.batch, first, at.head) + at.channel;
  float sums[kVector] = {};
#pragma unroll 8
  for (int64_t row = 0; row < rows; ++row) {
    const auto values = *reinterpret_cast<const RowVector<T, kVector>*>(from + row * x.row_stride);
#pragma unroll
    for (int i = 0; i < kVector; ++i) sums[i] += to_float(values.values[i]);
  }
  float* to =
      means + ((at.batch * heads + at.head) * pieces.count + at.piece) * head_dim + at.channel;
#pragma unroll
  for (int i = 0; i < kVector; ++i) to[i] = rows > 0 ? sums[i] / static_cast<float>(rows) : 0.0f;
}

template <int kVector>
__global__ void __launch_bounds__(kThreads)
    add_gradient_kernel(const float* dmeans, Pieces pieces, int batch, int heads, int head_dim,
                        HeadView<float> dx) {
  using Vector = RowVector<float, kVector>;
  const Place at = place_of_thread<kVector>(batch, pieces.count, heads, head_dim);
  if (!at.exists) return;
  const int64_t first = pieces.first(at.piece), rows = pieces.last(at.piece) - first;
  const float* from =
      dmeans + ((at.batch * heads + at.head) * pieces.count + at.piece) * head_dim + at.channel;
  float shares[kVector];
#pragma unroll
  for (int i = 0; i < kVector; ++i) shares[i] = from[i] / static_cast<float>(rows);
  float* to = dx.row(at.batch, first, at.head) + at.channel;
#pragma unroll 4
  for (int64_t row = 0; row < rows; ++row) {
    Vector* vector = reinterpret_cast<Vector*>(to + row * dx.row_stride);
    Vector values = *vector;
#pragma unroll
    for (int i = 0; i < kVector; ++i) values.values[i] += shares[i];
    *vector = values;
  }
}

// Whether every row of the view starts at a multiple of 16 bytes and ends at one.
template <class T>
bool is_wide(HeadView<T> view, int head_dim) {
  constexpr int64_t kWide = kWideVector<std::remove_const_t<T>>;
  return reinterpret_cast<uintptr_t>(view.data) % 16 == 0 && view.batch_stride % kWide == 0 &&
         view.row_stride % kWide == 0 && view.head_stride % kWide == 0 && head_dim % kWide == 0;
}

void check_shape(const Pieces& pieces, int batch, int heads, int head_dim) {
  SPROCKET_CHECK(batch >= 0 && heads >= 0 && pieces.count >= 0 && head_dim >= 1,
                 "pooling of [{}, {}, {}, {}]", batch, heads, pieces.count, head_dim);
}

void pool(HeadView<const void> x, DType dtype, const Pieces& pieces, int batch, int heads,
          int head_dim, float* means, StreamView stream) {
  check_shape(pieces, batch, heads, head_dim);
  with_element_type(dtype, [&](auto element) {
    using T = decltype(element);
    const HeadView<const T> view = typed<T>(x);
    const int64_t channels = batch * pieces.count * heads * head_dim;
    if (channels == 0) return;
    if (is_wide(view, head_dim)) {
      constexpr int kVector = kWideVector<T>;
      pool_kernel<T, kVector>
          <<<grid_of(channels / kVector, kThreads), kThreads, 0, stream_of(stream)>>>(
              view, pieces, batch, heads, head_dim, means);
    } else {
      pool_kernel<T, 1><<<grid_of(channels, kThreads), kThreads, 0, stream_of(stream)>>>(
          view, pieces, batch, heads, head_dim, means);
    }
    check_launch("pool_blocks");
  });
}

}  // namespace

void pool_blocks(HeadView<const void> x, DType dtype, const int64_t* offsets, int blocks, int batch,
                 int heads, int head_dim, float* means, StreamView stream) {
  pool(x, dtype, {offsets, blocks, 1, 0}, batch, heads, head_dim, means, stream);
}

void pool_sub_blocks(HeadView<const void> x, DType dtype, const int64_t* offsets, int blocks,
                     int parts, int capacity, int batch, int heads, int head_dim, float* means,
                     StreamView stream) {
  SPROCKET_CHECK(parts >= 1 && capacity >= parts && capacity % parts == 0,
                 "{} parts of blocks of {} rows", parts, capacity);
  pool(x, dtype, {offsets, static_cast<int64_t>(blocks) * parts, parts, capacity / parts}, batch,
       heads, head_dim, means, stream);
}

void add_pooling_gradient(const float* dmeans, const int64_t* offsets, int blocks, int batch,
                          int heads, int head_dim, HeadView<float> dx, StreamView stream) {
  const Pieces pieces{offsets, blocks, 1, 0};
  check_shape(pieces, batch, heads, head_dim);
  const int64_t channels = batch * pieces.count * heads * head_dim;
  if (channels == 0) return;
  constexpr int kVector = kWideVector<float>;
  if (is_wide(dx, head_dim)) {
    add_gradient_kernel<kVector>
        <<<grid_of(channels / kVector, kThreads), kThreads, 0, stream_of(stream)>>>(
            dmeans, pieces, batch, heads, head_dim, dx);
  } else {
    add_gradient_kernel<1><<<grid_of(channels, kThreads), kThreads, 0, stream_of(stream)>>>(
        dmeans, pieces, batch, heads, head_dim, dx);
  }
  check_launch("add_pooling_gradient");
}

}  // namespace sprocket::kernels::cuda
