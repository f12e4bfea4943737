#include "kernels/cuda/block_sum.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/octet.cuh"
#include "kernels/cuda/optimizer.h"

namespace sprocket::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kPartial = 16384;  // elements of a partial sum
constexpr int kTotalThreads = 1024;

__global__ void __launch_bounds__(kThreads)
    square_partials_kernel(const float* __restrict__ values, int64_t count,
                           double* __restrict__ partials) {
  __shared__ BlockSumScratch<double, 1> scratch;
  const int64_t begin = blockIdx.x * kPartial;
  double sum[1] = {0};
#pragma unroll 4
  for (int64_t k = 0; k < kPartial; k += kThreads * kOctet) {
    const int64_t at = begin + k + threadIdx.x * kOctet;
    const Octet octet =
        at + kOctet <= count ? load_octet(values + at) : load_first(values + at, count - at);
#pragma unroll
    for (int i = 0; i < kOctet; ++i) sum[0] += static_cast<double>(octet.v[i]) * octet.v[i];
  }
  BlockSum<double, 1>(scratch).sum(sum);
  if (threadIdx.x == 0) partials[blockIdx.x] = sum[0];
}

__global__ void __launch_bounds__(kTotalThreads)
    add_square_partials_kernel(const double* __restrict__ partials, int64_t count,
                               double* __restrict__ total) {
  __shared__ BlockSumScratch<double, 1> scratch;
  double sum[1] = {0};
  for (int64_t i = threadIdx.x; i < count; i += kTotalThreads) sum[0] += partials[i];
  BlockSum<double, 1>(scratch).sum(sum);
  if (threadIdx.x == 0) *total = sum[0];
}

__global__ void clip_scale_kernel(const double* sum_of_squares, double clip_norm, float* scale) {
  const double norm = sqrt(*sum_of_squares);
  *scale = norm > clip_norm ? static_cast<float>(clip_norm / norm) : 1.0f;
}

int64_t partial_count(int64_t count) { return (count + kPartial - 1) / kPartial; }

}  // namespace

int64_t sum_of_squares_workspace_bytes(int64_t count) {
  return partial_count(count) * static_cast<int64_t>(sizeof(double));
}

void sum_of_squares(const float* values, int64_t count, double* sum, const Workspace& workspace,
                    StreamView stream) {
  check_aligned(values, "sum_of_squares", "values");
  check_workspace(workspace, sum_of_squares_workspace_bytes(count), "sum_of_squares");
  auto* const partials = static_cast<double*>(workspace.data);
  if (count > 0) {
    square_partials_kernel<<<grid_of(count, kPartial), kThreads, 0, stream_of(stream)>>>(
        values, count, partials);
    check_launch("sum_of_squares");
  }
  add_square_partials_kernel<<<1, kTotalThreads, 0, stream_of(stream)>>>(partials,
                                                                         partial_count(count), sum);
  check_launch("sum_of_squares");
}

void clip_scale(const double* sum_of_squares, double clip_norm, float* scale, StreamView stream) {
  clip_scale_kernel<<<1, 1, 0, stream_of(stream)>>>(sum_of_squares, clip_norm, scale);
  check_launch("clip_scale");
}

}  // namespace sprocket::kernels::cuda
