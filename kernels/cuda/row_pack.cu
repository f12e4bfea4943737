#include "kernels/cuda/argument_checks.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/octet.cuh"
#include "kernels/cuda/row_layout.h"
#include "kernels/cuda/row_pack.h"

namespace sprocket::kernels::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int64_t kBlockRows = 64;  // of a run, for one block of threads

// The part of a run that this block of threads moves; `rows` may be 0 or less.
struct Part {
  int64_t first_row, packed_row;
  int rows;

  __device__ __forceinline__ explicit Part(const RowRun& run) {
    const int64_t skipped = blockIdx.y * kBlockRows;
    const int64_t left = run.rows - skipped;
    first_row = run.first_row + skipped;
    packed_row = run.packed_row + skipped;
    rows = static_cast<int>(left < kBlockRows ? left : kBlockRows);
  }
};

// x: 16-byte words, as are the strides; `words` of them make a row.
__global__ void __launch_bounds__(kThreads)
    pack_rows_kernel(HeadView<const uint4> x, const RowRun* __restrict__ runs, int words,
                     uint4* __restrict__ packed) {
  const RowRun run = runs[blockIdx.x];
  const Part part(run);
  const uint4* const from = x.row(run.batch, part.first_row, run.head);
  uint4* const to = packed + part.packed_row * words;
#pragma unroll 4
  for (int i = static_cast<int>(threadIdx.x); i < part.rows * words; i += kThreads) {
    to[i] = from[i / words * x.row_stride + i % words];
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    add_packed_rows_kernel(const T* __restrict__ packed, const RowRun* __restrict__ runs,
                           int head_dim, HeadView<float> sums) {
  const RowRun run = runs[blockIdx.x];
  const Part part(run);
  const int octets = head_dim / kOctet;
  const T* const from = packed + part.packed_row * head_dim;
  float* const to = sums.row(run.batch, part.first_row, run.head);
  for (int i = static_cast<int>(threadIdx.x); i < part.rows * octets; i += kThreads) {
    const Octet added = load_octet(from + static_cast<int64_t>(i) * kOctet);
    float* const at = to + i / octets * sums.row_stride + i % octets * kOctet;
    Octet sum = load_octet(at);
#pragma unroll
    for (int k = 0; k < kOctet; ++k) sum.v[k] += added.v[k];
    store_octet(at, sum);
  }
}

dim3 grid_for(const DeviceRowRuns& runs) {
  return dim3(grid_of(runs.count, 1), grid_of(runs.max_rows, kBlockRows));
}

}  // namespace

template <class T>
void pack_rows(HeadView<const T> x, const DeviceRowRuns& runs, int head_dim, T* packed,
               StreamView stream) {
  check_head_dim(head_dim, head_dim, "pack_rows");
  check_view(x, "pack_rows", "the tensor");
  check_aligned(packed, "pack_rows", "packed");
  if (runs.count == 0 || runs.max_rows == 0) return;
  constexpr int64_t kWord = sizeof(uint4) / sizeof(T);
  const HeadView<const uint4> words{reinterpret_cast<const uint4*>(x.data), x.batch_stride / kWord,
                                    x.row_stride / kWord, x.head_stride / kWord};
  pack_rows_kernel<<<grid_for(runs), kThreads, 0, stream_of(stream)>>>(
      words, runs.runs, static_cast<int>(head_dim / kWord), reinterpret_cast<uint4*>(packed));
  check_launch("pack_rows");
}

template <class T>
void add_packed_rows(const T* packed, const DeviceRowRuns& runs, int head_dim, HeadView<float> sums,
                     StreamView stream) {
  check_head_dim(head_dim, head_dim, "add_packed_rows");
  check_view(sums, "add_packed_rows", "sums");
  check_aligned(packed, "add_packed_rows", "packed");
  if (runs.count == 0 || runs.max_rows == 0) return;
  add_packed_rows_kernel<T>
      <<<grid_for(runs), kThreads, 0, stream_of(stream)>>>(packed, runs.runs, head_dim, sums);
  check_launch("add_packed_rows");
}

#define SPROCKET_INSTANTIATE(T)                                                             \
  template void pack_rows<T>(HeadView<const T>, const DeviceRowRuns&, int, T*, StreamView); \
  template void add_packed_rows<T>(const T*, const DeviceRowRuns&, int, HeadView<float>,    \
                                   StreamView);
SPROCKET_INSTANTIATE(float)
SPROCKET_INSTANTIATE(__nv_bfloat16)
SPROCKET_INSTANTIATE(__half)
#undef SPROCKET_INSTANTIATE

}  // namespace sprocket::kernels::cuda
