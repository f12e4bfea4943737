#include "kernels/cuda/argument_checks.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ulysses_messages.h"

namespace sprocket::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kBlockRows = 16;

// Sizes and strides below count words of 16 bytes; `words` of them make a head's row.

// The kernels move between `tensor` and `messages`: kPack to the messages, else back.
template <bool kPack, class Tensor, class Message>
__device__ __forceinline__ void move(Tensor* tensor, Message* message) {
  if constexpr (kPack) {
    *message = *tensor;
  } else {
    *tensor = *message;
  }
}

__device__ __forceinline__ int rows_of_block(int64_t rows) {
  const int64_t left = rows - static_cast<int64_t>(blockIdx.x) * kBlockRows;
  return static_cast<int>(left < kBlockRows ? left : kBlockRows);
}

// Blocks of threads: (part of the rows, member and sample).
template <bool kPack, class Tensor, class Message>
__global__ void __launch_bounds__(kThreads)
    move_heads_kernel(HeadView<Tensor> x, HeadMessages layout, int words,
                      Message* __restrict__ messages) {
  const int64_t member = blockIdx.y / layout.batch, sample = blockIdx.y % layout.batch;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kBlockRows;
  const int of_row = layout.heads * words;
  Message* const message =
      messages + member * layout.message_stride + (sample * layout.rows + first) * of_row;
  const int32_t* const __restrict__ order = layout.order + member * layout.heads;
  const int count = rows_of_block(layout.rows) * of_row;
#pragma unroll 4
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads) {
    const int row = i / of_row, in_row = i % of_row;
    Tensor* const at = x.row(sample, first + row, order[in_row / words]) + in_row % words;
    move<kPack>(at, message + i);
  }
}

// The member that holds `row`.
__device__ __forceinline__ int member_of(const int64_t* first_row, int members, int64_t row) {
  int low = 0, high = members;  // first_row[low] <= row < first_row[high]
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (first_row[middle] <= row) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}

// Blocks of threads: (part of the rows, sample).
template <bool kPack, class Tensor, class Message>
__global__ void __launch_bounds__(kThreads)
    move_rows_kernel(Tensor* __restrict__ x, RowMessages layout, int width,
                     Message* __restrict__ messages) {
  const int64_t sample = blockIdx.y;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kBlockRows;
  const int count = rows_of_block(layout.rows) * width;
#pragma unroll 4
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads) {
    const int64_t row = first + i / width;
    const int member = member_of(layout.first_row, layout.members, row);
    const int64_t begin = layout.first_row[member];
    const int64_t rows = layout.first_row[member + 1] - begin;
    const int64_t message_row = layout.tensors * layout.batch * begin +
                                (layout.tensor * layout.batch + sample) * rows + row - begin;
    const int column = i % width;
    move<kPack>(x + (sample * layout.rows + row) * width + column,
                messages + message_row * width + column);
  }
}

template <class T>
constexpr int64_t kWord = sizeof(uint4) / sizeof(T);

template <bool kPack, class T, class Tensor, class Message>
void move_heads(Tensor* data, const HeadView<T>& x, HeadMessages layout, Message* messages,
                const char* kernel, StreamView stream) {
  check_head_dim(layout.head_dim, layout.head_dim, kernel);
  check_view(x, kernel, "the tensor");
  check_aligned(messages, kernel, "messages");
  SPROCKET_CHECK(layout.message_stride % kWord<T> == 0, "{}: messages {} elements apart", kernel,
                 layout.message_stride);
  if (layout.members == 0 || layout.batch == 0 || layout.rows == 0 || layout.heads == 0) return;
  const HeadView<Tensor> words{data, x.batch_stride / kWord<T>, x.row_stride / kWord<T>,
                               x.head_stride / kWord<T>};
  layout.message_stride /= kWord<T>;
  const dim3 grid(grid_of(layout.rows, kBlockRows),
                  grid_of(static_cast<int64_t>(layout.members) * layout.batch, 1));
  move_heads_kernel<kPack><<<grid, kThreads, 0, stream_of(stream)>>>(
      words, layout, static_cast<int>(layout.head_dim / kWord<T>), messages);
  check_launch(kernel);
}

template <bool kPack, class T, class Tensor, class Message>
void move_rows(Tensor* x, const RowMessages& layout, Message* messages, const char* kernel,
               StreamView stream) {
  check_head_dim(layout.head_dim, layout.head_dim, kernel);
  check_aligned(x, kernel, "the tensor");
  check_aligned(messages, kernel, "messages");
  if (layout.batch == 0 || layout.rows == 0 || layout.heads == 0) return;
  const int64_t width = static_cast<int64_t>(layout.heads) * layout.head_dim / kWord<T>;
  const dim3 grid(grid_of(layout.rows, kBlockRows), static_cast<unsigned>(layout.batch));
  move_rows_kernel<kPack>
      <<<grid, kThreads, 0, stream_of(stream)>>>(x, layout, static_cast<int>(width), messages);
  check_launch(kernel);
}

}  // namespace

template <class T>
void pack_heads(HeadView<const T> x, const HeadMessages& layout, T* messages, StreamView stream) {
  move_heads<true, const T>(reinterpret_cast<const uint4*>(x.data), x, layout,
                            reinterpret_cast<uint4*>(messages), "pack_heads", stream);
}

template <class T>
void unpack_heads(const T* messages, const HeadMessages& layout, HeadView<T> x, StreamView stream) {
  move_heads<false, T>(reinterpret_cast<uint4*>(x.data), x, layout,
                       reinterpret_cast<const uint4*>(messages), "unpack_heads", stream);
}

template <class T>
void pack_member_rows(const T* x, const RowMessages& layout, T* messages, StreamView stream) {
  move_rows<true, T>(reinterpret_cast<const uint4*>(x), layout, reinterpret_cast<uint4*>(messages),
                     "pack_member_rows", stream);
}

template <class T>
void unpack_member_rows(const T* messages, const RowMessages& layout, T* x, StreamView stream) {
  move_rows<false, T>(reinterpret_cast<uint4*>(x), layout, reinterpret_cast<const uint4*>(messages),
                      "unpack_member_rows", stream);
}

#define SPROCKET_INSTANTIATE(T)                                                          \
  template void pack_heads<T>(HeadView<const T>, const HeadMessages&, T*, StreamView);   \
  template void unpack_heads<T>(const T*, const HeadMessages&, HeadView<T>, StreamView); \
  template void pack_member_rows<T>(const T*, const RowMessages&, T*, StreamView);       \
  template void unpack_member_rows<T>(const T*, const RowMessages&, T*, StreamView);
SPROCKET_INSTANTIATE(float)
SPROCKET_INSTANTIATE(__nv_bfloat16)
SPROCKET_INSTANTIATE(__half)
#undef SPROCKET_INSTANTIATE

}  // namespace sprocket::kernels::cuda
