#include "kernels/adamw_factors.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/octet.cuh"
#include "kernels/cuda/optimizer.h"

namespace sprocket::kernels::cuda {
namespace {

constexpr int kThreads = 256;
static_assert(kAdamWChunk % (kThreads * kOctet) == 0);

__device__ __forceinline__ void update(const AdamWFactors<float>& f, float gradient,
                                       float& parameter, float& mean, float& square) {
  const float g = gradient * f.scale;
  mean += f.one_minus_beta1 * (g - mean);
  square = square * f.beta2 + f.one_minus_beta2 * g * g;
  parameter = parameter * f.decay - f.rate * (mean / (sqrtf(square) * f.inverse_root + f.eps));
}

template <class T>
__device__ __forceinline__ bool all_aligned(const AdamWTensor<T>& t) {
  const auto bits = reinterpret_cast<uintptr_t>(t.gradient) |
                    reinterpret_cast<uintptr_t>(t.parameter) | reinterpret_cast<uintptr_t>(t.mean) |
                    reinterpret_cast<uintptr_t>(t.square) | reinterpret_cast<uintptr_t>(t.copy);
  return bits % 16 == 0;
}

template <class T>
__device__ __forceinline__ void update_octet(const AdamWFactors<float>& factors,
                                             const AdamWTensor<T>& t, int64_t at) {
  const Octet gradient = load_octet(t.gradient + at);
  Octet parameter = load_octet(t.parameter + at), mean = load_octet(t.mean + at),
        square = load_octet(t.square + at);
#pragma unroll
  for (int i = 0; i < kOctet; ++i) {
    update(factors, gradient.v[i], parameter.v[i], mean.v[i], square.v[i]);
  }
  store_octet(t.parameter + at, parameter);
  store_octet(t.mean + at, mean);
  store_octet(t.square + at, square);
  if (t.copy != nullptr) store_octet(t.copy + at, parameter);
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    adamw_kernel(AdamWFactors<float> factors, const AdamWTensor<T>* __restrict__ tensors,
                 const TensorChunk* __restrict__ chunks, const float* __restrict__ gradient_scale) {
  const TensorChunk chunk = chunks[blockIdx.x];
  const AdamWTensor<T> t = tensors[chunk.tensor];
  if (gradient_scale != nullptr) factors.scale *= *gradient_scale;
  const int64_t first = chunk.chunk * kAdamWChunk;
  const int64_t last = first + kAdamWChunk < t.count ? first + kAdamWChunk : t.count;
  int64_t one_by_one = first;
  if (all_aligned(t)) {
    for (int64_t at = first + threadIdx.x * kOctet; at + kOctet <= last; at += kThreads * kOctet) {
      update_octet(factors, t, at);
    }
    one_by_one = last - (last - first) % kOctet;
  }
  for (int64_t at = one_by_one + threadIdx.x; at < last; at += kThreads) {
    update(factors, t.gradient[at], t.parameter[at], t.mean[at], t.square[at]);
    if (t.copy != nullptr) t.copy[at] = from_float<T>(t.parameter[at]);
  }
}

}  // namespace

std::vector<TensorChunk> tensor_chunks(const std::vector<int64_t>& counts) {
  std::vector<TensorChunk> chunks;
  for (size_t tensor = 0; tensor < counts.size(); ++tensor) {
    for (int64_t first = 0; first < counts[tensor]; first += kAdamWChunk) {
      chunks.push_back({static_cast<int32_t>(tensor), static_cast<int32_t>(first / kAdamWChunk)});
    }
  }
  return chunks;
}

template <class T>
void adamw_update(const AdamWStep& step, const AdamWTensor<T>* tensors, const TensorChunk* chunks,
                  int64_t chunk_count, const float* gradient_scale, StreamView stream) {
  SPROCKET_CHECK_GE(step.step, 1);
  if (chunk_count == 0) return;
  adamw_kernel<T><<<grid_of(chunk_count, 1), kThreads, 0, stream_of(stream)>>>(
      adamw_factors<float>(step), tensors, chunks, gradient_scale);
  check_launch("adamw_update");
}

template void adamw_update(const AdamWStep&, const AdamWTensor<__nv_bfloat16>*, const TensorChunk*,
                           int64_t, const float*, StreamView);
template void adamw_update(const AdamWStep&, const AdamWTensor<__half>*, const TensorChunk*,
                           int64_t, const float*, StreamView);

}  // namespace sprocket::kernels::cuda
