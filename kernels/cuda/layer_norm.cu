#include "kernels/cuda/block_sum.cuh"
#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/row_layout.h"
#include "kernels/cuda/row_partials.h"
#include "kernels/cuda/row_registers.cuh"

namespace sprocket::kernels::cuda {
namespace {

template <class T>
__global__ void __launch_bounds__(kMaxRowThreads)
    layer_norm_kernel(const float* __restrict__ x, RowAffine<float> affine, RowChunks chunks,
                      int64_t dim, float eps, T* __restrict__ y) {
  __shared__ BlockSumScratch<float, 1> scratch;
  BlockSum<float, 1> block(scratch);
  const int64_t sample = chunks.sample(blockIdx.x), vector = sample * affine.sample_stride;
  const int64_t first = sample * chunks.rows + chunks.first_row(blockIdx.x);
  const int64_t last = first + chunks.row_count(blockIdx.x);
  const float base = static_cast<float>(affine.base);
  RowPiece factor, shift;
  load_row(affine.scale + vector, dim, factor);
  load_row(affine.shift + vector, dim, shift);
  for_each_element(dim, [&](int k, int i) { factor[k].v[i] += base; });
  for (int64_t row = first; row < last; ++row) {
    RowPiece value;
    load_row(x + row * dim, dim, value);
    float sum[1] = {0}, square[1] = {0};
    for_each_element(dim, [&](int k, int i) { sum[0] += value[k].v[i]; });
    block.sum(sum);
    const float mean = sum[0] / static_cast<float>(dim);
    for_each_element(dim, [&](int k, int i) {
      value[k].v[i] -= mean;
      square[0] += value[k].v[i] * value[k].v[i];
    });
    block.sum(square);
    const float inverse = 1.0f / sqrtf(square[0] / static_cast<float>(dim) + eps);
    for_each_element(dim, [&](int k, int i) {
      value[k].v[i] = value[k].v[i] * inverse * factor[k].v[i] + shift[k].v[i];
    });
    store_row(y + row * dim, dim, value);
  }
}

// partials: [chunks][2][dim], dscale and dshift of the chunk's rows.
template <class T>
__global__ void __launch_bounds__(kMaxRowThreads)
    layer_norm_backward_kernel(const T* __restrict__ dy, const float* __restrict__ x,
                               RowAffine<float> affine, RowChunks chunks, int64_t dim, float eps,
                               float* __restrict__ dx, float* __restrict__ partials) {
  __shared__ BlockSumScratch<float, 3> scratch;
  BlockSum<float, 3> block(scratch);
  const int64_t sample = chunks.sample(blockIdx.x);
  const int64_t first = sample * chunks.rows + chunks.first_row(blockIdx.x);
  const int64_t last = first + chunks.row_count(blockIdx.x);
  const float base = static_cast<float>(affine.base);
  const float per_element = 1.0f / static_cast<float>(dim);
  RowPiece factor, dscale, dshift;
  load_row(affine.scale + sample * affine.sample_stride, dim, factor);
  for_each_element(dim, [&](int k, int i) { factor[k].v[i] += base; });
#pragma unroll
  for (int k = 0; k < kRowOctets; ++k) dscale[k] = dshift[k] = octet_of(0);
  for (int64_t row = first; row < last; ++row) {
    RowPiece centred, gradient, total;
    load_row(x + row * dim, dim, centred);
    load_row(dy + row * dim, dim, gradient);
    load_row(dx + row * dim, dim, total);
    float sum[1] = {0};
    for_each_element(dim, [&](int k, int i) { sum[0] += centred[k].v[i]; });
    block.sum(sum);
    const float mean = sum[0] / static_cast<float>(dim);
    float sums[3] = {0, 0, 0};  // centred^2, scaled gradient, scaled gradient * centred
    for_each_element(dim, [&](int k, int i) {
      centred[k].v[i] -= mean;
      const float scaled = gradient[k].v[i] * factor[k].v[i];
      sums[0] += centred[k].v[i] * centred[k].v[i];
      sums[1] += scaled;
      sums[2] += scaled * centred[k].v[i];
    });
    block.sum(sums);
    const float inverse = 1.0f / sqrtf(sums[0] / static_cast<float>(dim) + eps);
    const float offset = sums[1] * per_element, slope = sums[2] * inverse * per_element;
    for_each_element(dim, [&](int k, int i) {
      const float normal = centred[k].v[i] * inverse;
      const float scaled = gradient[k].v[i] * factor[k].v[i];
      dscale[k].v[i] += gradient[k].v[i] * normal;
      dshift[k].v[i] += gradient[k].v[i];
      total[k].v[i] += (scaled - offset - normal * slope) * inverse;
    });
    store_row(dx + row * dim, dim, total);
  }
  float* const partial = partials + static_cast<int64_t>(blockIdx.x) * 2 * dim;
  store_row(partial, dim, dscale);
  store_row(partial + dim, dim, dshift);
}

void check_affine(const RowAffine<float>& affine, const char* kernel) {
  check_aligned(affine.scale, kernel, "scale");
  check_aligned(affine.shift, kernel, "shift");
  check_aligned(affine.scale + affine.sample_stride, kernel, "scale of the second sample");
}

}  // namespace

template <class T>
void layer_norm(const float* x, const RowAffine<float>& affine, int64_t batch, int64_t rows,
                int64_t dim, double eps, T* y, StreamView stream) {
  check_row_dim(dim, kMaxRowDim, "layer_norm");
  check_affine(affine, "layer_norm");
  check_aligned(x, "layer_norm", "x");
  check_aligned(y, "layer_norm", "y");
  const RowChunks chunks{batch, rows, kForwardRows};
  if (chunks.count() == 0) return;
  layer_norm_kernel<T><<<grid_of(chunks.count(), 1), row_threads(dim), 0, stream_of(stream)>>>(
      x, affine, chunks, dim, static_cast<float>(eps), y);
  check_launch("layer_norm");
}

int64_t layer_norm_backward_workspace_bytes(int64_t batch, int64_t rows, int64_t dim) {
  return row_partials_bytes(batch, rows, dim, 2);
}

template <class T>
void layer_norm_backward(const T* dy, const float* x, const RowAffine<float>& affine, int64_t batch,
                         int64_t rows, int64_t dim, double eps, float* dx, float* dscale,
                         float* dshift, const Workspace& workspace, StreamView stream) {
  check_row_dim(dim, kMaxRowDim, "layer_norm_backward");
  check_affine(affine, "layer_norm_backward");
  check_aligned(dy, "layer_norm_backward", "dy");
  check_aligned(x, "layer_norm_backward", "x");
  check_aligned(dx, "layer_norm_backward", "dx");
  check_workspace(workspace, layer_norm_backward_workspace_bytes(batch, rows, dim),
                  "layer_norm_backward");
  const RowChunks chunks{batch, rows, kPartialRows};
  auto* const partials = static_cast<float*>(workspace.data);
  if (chunks.count() > 0) {
    layer_norm_backward_kernel<T>
        <<<grid_of(chunks.count(), 1), row_threads(dim), 0, stream_of(stream)>>>(
            dy, x, affine, chunks, dim, static_cast<float>(eps), dx, partials);
    check_launch("layer_norm_backward");
  }
  add_row_partials(partials, batch, rows, dim, {{dscale, dshift}, 2, affine.sample_stride}, stream);
}

#define SPROCKET_INSTANTIATE(T)                                                                  \
  template void layer_norm<T>(const float*, const RowAffine<float>&, int64_t, int64_t, int64_t,  \
                              double, T*, StreamView);                                           \
  template void layer_norm_backward<T>(const T*, const float*, const RowAffine<float>&, int64_t, \
                                       int64_t, int64_t, double, float*, float*, float*,         \
                                       const Workspace&, StreamView);
SPROCKET_INSTANTIATE(float)
SPROCKET_INSTANTIATE(__nv_bfloat16)
SPROCKET_INSTANTIATE(__half)
#undef SPROCKET_INSTANTIATE

}  // namespace sprocket::kernels::cuda
