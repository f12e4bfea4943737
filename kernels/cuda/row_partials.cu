#include "kernels/cuda/launch.h"
#include "kernels/cuda/row_layout.h"
#include "kernels/cuda/row_partials.h"

namespace sprocket::kernels::cuda {
namespace {

constexpr int kColumns = 32;
constexpr int kSlices = 32;

// A thread adds one slice of a column's terms; the slices are added in ascending order. So the
// order is fixed by the number of terms.
__global__ void __launch_bounds__(kColumns* kSlices)
    add_partials_kernel(const float* __restrict__ partials, int64_t terms, int64_t dim,
                        int column_blocks, RowSums sums) {
  __shared__ float of_slice[kSlices][kColumns];
  const int64_t width = sums.count * dim;
  const int64_t sum = blockIdx.x / column_blocks;
  const int64_t column = static_cast<int64_t>(blockIdx.x % column_blocks) * kColumns + threadIdx.x;
  const int64_t size = ceil_div(terms, kSlices);
  const int64_t first = threadIdx.y * size;
  const int64_t last = first + size < terms ? first + size : terms;
  float slice = 0;
  if (column < width) {
    const float* from = partials + sum * terms * width + column;
#pragma unroll 8
    for (int64_t term = first; term < last; ++term) slice += from[term * width];
  }
  of_slice[threadIdx.y][threadIdx.x] = slice;
  __syncthreads();
  if (threadIdx.y != 0 || column >= width) return;
  float total = of_slice[0][threadIdx.x];
#pragma unroll
  for (int i = 1; i < kSlices; ++i) total += of_slice[i][threadIdx.x];
  const int64_t output = column / dim;
  float* const to = output == 0 ? sums.to[0] : sums.to[1];
  to[sum * sums.sample_stride + column - output * dim] = total;
}

}  // namespace

int64_t row_partials_bytes(int64_t batch, int64_t rows, int64_t dim, int sums) {
  return RowChunks{batch, rows, kPartialRows}.count() * sums * dim *
         static_cast<int64_t>(sizeof(float));
}

void add_row_partials(const float* partials, int64_t batch, int64_t rows, int64_t dim,
                      const RowSums& sums, StreamView stream) {
  const int64_t chunks = RowChunks{batch, rows, kPartialRows}.of_sample();
  const int64_t count = sums.sample_stride == 0 ? 1 : batch;
  const int64_t terms = sums.sample_stride == 0 ? batch * chunks : chunks;
  const int64_t column_blocks = ceil_div(sums.count * dim, kColumns);
  if (count == 0) return;
  add_partials_kernel<<<grid_of(count * column_blocks, 1), dim3(kColumns, kSlices), 0,
                        stream_of(stream)>>>(partials, terms, dim, static_cast<int>(column_blocks),
                                             sums);
  check_launch("add_row_partials");
}

}  // namespace sprocket::kernels::cuda
