#include "tests/kernels/cuda/row_tile_probe.h"

#include "kernels/cuda/launch.h"
#include "kernels/cuda/row_tile.cuh"

namespace sprocket::kernels::cuda {
namespace {

template <int kRows>
__global__ void __launch_bounds__(row_tile::kThreads)
    probe_kernel(const float* a, int m, const float* b, int n, int dim, float scale,
                 float* scores) {
  __shared__ float4 stage[row_tile::stage_floats(kRows) / 4];
  const int first = static_cast<int>(blockIdx.x) * kRows;
  const int rows = min(kRows, m - first);
  row_tile::multiply_rows<kRows>(a + static_cast<int64_t>(first) * dim, rows, b, n, dim,
                                 reinterpret_cast<float*>(stage), [&](int i, int j, float sum) {
                                   if (i < rows)
                                     scores[static_cast<int64_t>(first + i) * n + j] =
                                         __fmul_rn(sum, scale);
                                 });
}

}  // namespace

void probe_row_tile(int rows, const float* a, int m, const float* b, int n, int dim, float scale,
                    float* scores, StreamView stream) {
  const auto kernel = rows == 16 ? probe_kernel<16> : rows == 8 ? probe_kernel<8> : probe_kernel<4>;
  kernel<<<grid_of(m, rows), row_tile::kThreads, 0, stream_of(stream)>>>(a, m, b, n, dim, scale,
                                                                         scores);
  check_launch("probe_row_tile");
}

}  // namespace sprocket::kernels::cuda
