#include "kernels/cuda/block_sum.cuh"
#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/row_layout.h"
#include "kernels/cuda/row_partials.h"
#include "kernels/cuda/row_registers.cuh"

namespace sprocket::kernels::cuda {
namespace {

// Rotates the pairs of this thread's pieces by the angles of `row`, back with direction -1. A piece
// lies in one head, as head_dim is a multiple of 8.
__device__ __forceinline__ void rotate(const Rotation<float>& rotation, int64_t row, int64_t dim,
                                       float direction, RowPiece& piece) {
  if (rotation.cos == nullptr) return;
#pragma unroll
  for (int k = 0; k < kRowOctets; ++k) {
    const int64_t column = column_of(k);
    if (column >= dim) continue;
    const auto in_head = static_cast<uint32_t>(column) % static_cast<uint32_t>(rotation.head_dim);
    const int64_t angle = row * (rotation.head_dim / 2) + in_head / 2;
    const float4 cosines = *reinterpret_cast<const float4*>(rotation.cos + angle);
    const float4 sines = *reinterpret_cast<const float4*>(rotation.sin + angle);
    const float c[4] = {cosines.x, cosines.y, cosines.z, cosines.w};
    const float s[4] = {sines.x, sines.y, sines.z, sines.w};
#pragma unroll
    for (int pair = 0; pair < 4; ++pair) {
      const float a = piece[k].v[2 * pair], b = piece[k].v[2 * pair + 1];
      const float sine = direction * s[pair];
      piece[k].v[2 * pair] = a * c[pair] - b * sine;
      piece[k].v[2 * pair + 1] = a * sine + b * c[pair];
    }
  }
}

// y may be x: a thread writes what it alone has read.
template <class T>
__global__ void __launch_bounds__(kMaxRowThreads)
    rms_norm_rotate_kernel(const T* x, const float* __restrict__ weight, Rotation<float> rotation,
                           RowChunks chunks, int64_t dim, float eps, T* y) {
  __shared__ BlockSumScratch<float, 1> scratch;
  BlockSum<float, 1> block(scratch);
  const int64_t first = chunks.first_row(blockIdx.x);
  const int64_t last = first + chunks.row_count(blockIdx.x);
  const int64_t sample_row = chunks.sample(blockIdx.x) * chunks.rows;
  RowPiece factor;
  load_row(weight, dim, factor);
  for (int64_t row = first; row < last; ++row) {
    RowPiece value;
    load_row(x + (sample_row + row) * dim, dim, value);
    float square[1] = {0};
    for_each_element(dim, [&](int k, int i) { square[0] += value[k].v[i] * value[k].v[i]; });
    block.sum(square);
    const float inverse = 1.0f / sqrtf(square[0] / static_cast<float>(dim) + eps);
    for_each_element(
        dim, [&](int k, int i) { value[k].v[i] = value[k].v[i] * inverse * factor[k].v[i]; });
    rotate(rotation, row, dim, 1.0f, value);
    store_row(y + (sample_row + row) * dim, dim, value);
  }
}

// partials: [chunks][dim], dweight of the chunk's rows. dx may be dy.
template <class T>
__global__ void __launch_bounds__(kMaxRowThreads)
    rms_norm_rotate_backward_kernel(const T* dy, const T* __restrict__ x,
                                    const float* __restrict__ weight, Rotation<float> rotation,
                                    RowChunks chunks, int64_t dim, float eps, T* dx,
                                    float* __restrict__ partials) {
  __shared__ BlockSumScratch<float, 2> scratch;
  BlockSum<float, 2> block(scratch);
  const int64_t first = chunks.first_row(blockIdx.x);
  const int64_t last = first + chunks.row_count(blockIdx.x);
  const int64_t sample_row = chunks.sample(blockIdx.x) * chunks.rows;
  const float per_element = 1.0f / static_cast<float>(dim);
  RowPiece factor, dweight;
  load_row(weight, dim, factor);
#pragma unroll
  for (int k = 0; k < kRowOctets; ++k) dweight[k] = octet_of(0);
  for (int64_t row = first; row < last; ++row) {
    RowPiece value, gradient;
    load_row(x + (sample_row + row) * dim, dim, value);
    load_row(dy + (sample_row + row) * dim, dim, gradient);
    rotate(rotation, row, dim, -1.0f, gradient);
    float sums[2] = {0, 0};  // x^2, gradient of the normal * x
    for_each_element(dim, [&](int k, int i) {
      sums[0] += value[k].v[i] * value[k].v[i];
      sums[1] += gradient[k].v[i] * factor[k].v[i] * value[k].v[i];
    });
    block.sum(sums);
    const float inverse = 1.0f / sqrtf(sums[0] / static_cast<float>(dim) + eps);
    const float slope = sums[1] * inverse * per_element;
    for_each_element(dim, [&](int k, int i) {
      const float normal = value[k].v[i] * inverse;
      dweight[k].v[i] += gradient[k].v[i] * normal;
      gradient[k].v[i] = (gradient[k].v[i] * factor[k].v[i] - normal * slope) * inverse;
    });
    store_row(dx + (sample_row + row) * dim, dim, gradient);
  }
  store_row(partials + static_cast<int64_t>(blockIdx.x) * dim, dim, dweight);
}

void check_rotation(const Rotation<float>& rotation, int64_t dim, const char* kernel) {
  if (rotation.cos == nullptr) return;
  check_head_dim(rotation.head_dim, dim, kernel);
  SPROCKET_CHECK(rotation.sin != nullptr, "{}: cosines without sines", kernel);
  check_aligned(rotation.cos, kernel, "cos");
  check_aligned(rotation.sin, kernel, "sin");
}

}  // namespace

template <class T>
void rms_norm_rotate(const T* x, const float* weight, const Rotation<float>& rotation,
                     int64_t batch, int64_t rows, int64_t dim, double eps, T* y,
                     StreamView stream) {
  check_row_dim(dim, kMaxRowDim, "rms_norm_rotate");
  check_rotation(rotation, dim, "rms_norm_rotate");
  check_aligned(x, "rms_norm_rotate", "x");
  check_aligned(weight, "rms_norm_rotate", "weight");
  check_aligned(y, "rms_norm_rotate", "y");
  const RowChunks chunks{batch, rows, kForwardRows};
  if (chunks.count() == 0) return;
  rms_norm_rotate_kernel<T><<<grid_of(chunks.count(), 1), row_threads(dim), 0, stream_of(stream)>>>(
      x, weight, rotation, chunks, dim, static_cast<float>(eps), y);
  check_launch("rms_norm_rotate");
}

int64_t rms_norm_rotate_backward_workspace_bytes(int64_t batch, int64_t rows, int64_t dim) {
  return row_partials_bytes(batch, rows, dim, 1);
}

template <class T>
void rms_norm_rotate_backward(const T* dy, const T* x, const float* weight,
                              const Rotation<float>& rotation, int64_t batch, int64_t rows,
                              int64_t dim, double eps, T* dx, float* dweight,
                              const Workspace& workspace, StreamView stream) {
  check_row_dim(dim, kMaxRowDim, "rms_norm_rotate_backward");
  check_rotation(rotation, dim, "rms_norm_rotate_backward");
  check_aligned(dy, "rms_norm_rotate_backward", "dy");
  check_aligned(x, "rms_norm_rotate_backward", "x");
  check_aligned(weight, "rms_norm_rotate_backward", "weight");
  check_aligned(dx, "rms_norm_rotate_backward", "dx");
  check_workspace(workspace, rms_norm_rotate_backward_workspace_bytes(batch, rows, dim),
                  "rms_norm_rotate_backward");
  const RowChunks chunks{batch, rows, kPartialRows};
  auto* const partials = static_cast<float*>(workspace.data);
  if (chunks.count() > 0) {
    rms_norm_rotate_backward_kernel<T>
        <<<grid_of(chunks.count(), 1), row_threads(dim), 0, stream_of(stream)>>>(
            dy, x, weight, rotation, chunks, dim, static_cast<float>(eps), dx, partials);
    check_launch("rms_norm_rotate_backward");
  }
  add_row_partials(partials, batch, rows, dim, {{dweight}, 1, 0}, stream);
}

#define SPROCKET_INSTANTIATE(T)                                                                \
  template void rms_norm_rotate<T>(const T*, const float*, const Rotation<float>&, int64_t,    \
                                   int64_t, int64_t, double, T*, StreamView);                  \
  template void rms_norm_rotate_backward<T>(const T*, const T*, const float*,                  \
                                            const Rotation<float>&, int64_t, int64_t, int64_t, \
                                            double, T*, float*, const Workspace&, StreamView);
SPROCKET_INSTANTIATE(float)
SPROCKET_INSTANTIATE(__nv_bfloat16)
SPROCKET_INSTANTIATE(__half)
#undef SPROCKET_INSTANTIATE

}  // namespace sprocket::kernels::cuda
