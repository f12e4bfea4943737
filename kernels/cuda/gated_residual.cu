#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/octet.cuh"
#include "kernels/cuda/row_layout.h"
#include "kernels/cuda/row_partials.h"

namespace sprocket::kernels::cuda {
namespace {

constexpr int kMaxThreads = 256;
constexpr int64_t kLargestDim = int64_t{1} << 24;
constexpr int kRowsAtOnce = 4;  // whose loads are under way together

// A thread owns eight columns; blocks of threads are (chunk of rows, part of the columns).
dim3 grid_for(const RowChunks& chunks, int64_t dim, int threads) {
  return dim3(grid_of(chunks.count(), 1),
              static_cast<unsigned>(ceil_div(dim, int64_t{kOctet} * threads)));
}

int threads_for(int64_t dim) {
  const int64_t warps = ceil_div(dim, int64_t{kOctet} * 32);
  return static_cast<int>(warps * 32 < kMaxThreads ? warps * 32 : kMaxThreads);
}

__device__ __forceinline__ int64_t own_column() {
  return (static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x) * kOctet;
}

// `rows` is at most kRowsAtOnce.
template <class T>
__device__ __forceinline__ void load_rows(const T* from, int64_t dim, int64_t rows,
                                          Octet (&octets)[kRowsAtOnce]) {
#pragma unroll
  for (int r = 0; r < kRowsAtOnce; ++r) {
    octets[r] = r < rows ? load_octet(from + r * dim) : octet_of(0);
  }
}

template <class T>
__global__ void __launch_bounds__(kMaxThreads)
    add_gated_kernel(const T* __restrict__ y, const float* __restrict__ gate, int64_t gate_stride,
                     RowChunks chunks, int64_t dim, float* __restrict__ x) {
  const int64_t column = own_column();
  if (column >= dim) return;
  const int64_t sample = chunks.sample(blockIdx.x);
  const int64_t first = (sample * chunks.rows + chunks.first_row(blockIdx.x)) * dim + column;
  const int64_t rows = chunks.row_count(blockIdx.x);
  const Octet factor =
      gate == nullptr ? octet_of(1) : load_octet(gate + sample * gate_stride + column);
  Octet added[kRowsAtOnce], total[kRowsAtOnce];
  load_rows(y + first, dim, rows, added);
  load_rows(x + first, dim, rows, total);
#pragma unroll
  for (int r = 0; r < kRowsAtOnce; ++r) {
    if (r >= rows) break;
#pragma unroll
    for (int i = 0; i < kOctet; ++i) total[r].v[i] += added[r].v[i] * factor.v[i];
    store_octet(x + first + r * dim, total[r]);
  }
}

// partials: [chunks][dim], dgate of the chunk's rows; not written without a gate.
template <class T>
__global__ void __launch_bounds__(kMaxThreads)
    add_gated_backward_kernel(const float* __restrict__ dx, const T* __restrict__ y,
                              const float* __restrict__ gate, int64_t gate_stride, RowChunks chunks,
                              int64_t dim, T* __restrict__ dy, float* __restrict__ partials) {
  const int64_t column = own_column();
  if (column >= dim) return;
  const int64_t sample = chunks.sample(blockIdx.x);
  const int64_t first = (sample * chunks.rows + chunks.first_row(blockIdx.x)) * dim + column;
  const int64_t rows = chunks.row_count(blockIdx.x);
  const bool gated = gate != nullptr;
  const Octet factor = gated ? load_octet(gate + sample * gate_stride + column) : octet_of(1);
  Octet dgate = octet_of(0);
  for (int64_t row = 0; row < rows; row += kRowsAtOnce) {
    const int64_t at = first + row * dim;
    Octet gradient[kRowsAtOnce], value[kRowsAtOnce];
    load_rows(dx + at, dim, rows - row, gradient);
    if (gated) load_rows(y + at, dim, rows - row, value);
#pragma unroll
    for (int r = 0; r < kRowsAtOnce; ++r) {
      if (row + r >= rows) break;
#pragma unroll
      for (int i = 0; i < kOctet; ++i) {
        if (gated) dgate.v[i] += gradient[r].v[i] * value[r].v[i];
        gradient[r].v[i] *= factor.v[i];
      }
      store_octet(dy + at + r * dim, gradient[r]);
    }
  }
  if (gated) store_octet(partials + static_cast<int64_t>(blockIdx.x) * dim + column, dgate);
}

void check_gate(const float* gate, int64_t stride, const char* kernel) {
  if (gate == nullptr) return;
  check_aligned(gate, kernel, "gate");
  check_aligned(gate + stride, kernel, "gate of the second sample");
}

}  // namespace

template <class T>
void add_gated(const T* y, const float* gate, int64_t gate_stride, int64_t batch, int64_t rows,
               int64_t dim, float* x, StreamView stream) {
  check_row_dim(dim, kLargestDim, "add_gated");
  check_gate(gate, gate_stride, "add_gated");
  check_aligned(y, "add_gated", "y");
  check_aligned(x, "add_gated", "x");
  const RowChunks chunks{batch, rows, kRowsAtOnce};
  if (chunks.count() == 0) return;
  const int threads = threads_for(dim);
  add_gated_kernel<T><<<grid_for(chunks, dim, threads), threads, 0, stream_of(stream)>>>(
      y, gate, gate_stride, chunks, dim, x);
  check_launch("add_gated");
}

int64_t add_gated_backward_workspace_bytes(int64_t batch, int64_t rows, int64_t dim) {
  return row_partials_bytes(batch, rows, dim, 1);
}

template <class T>
void add_gated_backward(const float* dx, const T* y, const float* gate, int64_t gate_stride,
                        int64_t batch, int64_t rows, int64_t dim, T* dy, float* dgate,
                        const Workspace& workspace, StreamView stream) {
  check_row_dim(dim, kLargestDim, "add_gated_backward");
  check_gate(gate, gate_stride, "add_gated_backward");
  check_aligned(dx, "add_gated_backward", "dx");
  check_aligned(y, "add_gated_backward", "y");
  check_aligned(dy, "add_gated_backward", "dy");
  if (gate != nullptr) {
    check_workspace(workspace, add_gated_backward_workspace_bytes(batch, rows, dim),
                    "add_gated_backward");
  }
  const RowChunks chunks{batch, rows, kPartialRows};
  auto* const partials = static_cast<float*>(workspace.data);
  if (chunks.count() > 0) {
    const int threads = threads_for(dim);
    add_gated_backward_kernel<T><<<grid_for(chunks, dim, threads), threads, 0, stream_of(stream)>>>(
        dx, y, gate, gate_stride, chunks, dim, dy, partials);
    check_launch("add_gated_backward");
  }
  if (gate != nullptr) {
    add_row_partials(partials, batch, rows, dim, {{dgate}, 1, gate_stride}, stream);
  }
}

#define SPROCKET_INSTANTIATE(T)                                                                  \
  template void add_gated<T>(const T*, const float*, int64_t, int64_t, int64_t, int64_t, float*, \
                             StreamView);                                                        \
  template void add_gated_backward<T>(const float*, const T*, const float*, int64_t, int64_t,    \
                                      int64_t, int64_t, T*, float*, const Workspace&, StreamView);
SPROCKET_INSTANTIATE(float)
SPROCKET_INSTANTIATE(__nv_bfloat16)
SPROCKET_INSTANTIATE(__half)
#undef SPROCKET_INSTANTIATE

}  // namespace sprocket::kernels::cuda
