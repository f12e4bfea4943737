#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/octet.cuh"

namespace sprocket::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kOctetsAtOnce = 2;  // of a thread, whose loads are under way together
constexpr double kRootTwoOverPi = 0.79788456080286535588;
constexpr double kCubic = 0.044715;

// Beyond +-24 the share is exactly 0 or 1; clamped, x^3 stays finite. NaN stays NaN.
__device__ __forceinline__ float clamp_for_gelu(float x) {
  x = x > 24.0f ? 24.0f : x;
  return x < -24.0f ? -24.0f : x;
}

// 1 / (1 + exp(-2 u)). The roundings of 16-bit results hide those of the approximations.
template <class T>
__device__ __forceinline__ float gelu_share(float x) {
  const float u = x * (x * x * static_cast<float>(-2 * kRootTwoOverPi * kCubic) +
                       static_cast<float>(-2 * kRootTwoOverPi));
  if constexpr (sizeof(T) == 4) {
    return 1.0f / (expf(u) + 1.0f);
  } else {
    return __fdividef(1.0f, __expf(u) + 1.0f);
  }
}

template <class T>
struct Gelu {
  __device__ __forceinline__ static float of(float x) {
    return x * gelu_share<T>(clamp_for_gelu(x));
  }
};

template <class T>
struct GeluGradient {
  __device__ __forceinline__ static float of(float dy, float x) {
    const float value = clamp_for_gelu(x);
    const float share = gelu_share<T>(value);
    const float slope = value * value * static_cast<float>(6 * kRootTwoOverPi * kCubic) +
                        static_cast<float>(2 * kRootTwoOverPi);
    return dy * (share + value * share * (1.0f - share) * slope);
  }
};

// Inputs of one thread: octets at `first` and a block's width apart.
template <class T>
struct Inputs {
  Octet octet[kOctetsAtOnce];

  __device__ __forceinline__ Inputs(const T* from, int64_t first, int64_t count) {
#pragma unroll
    for (int k = 0; k < kOctetsAtOnce; ++k) {
      const int64_t at = first + k * kThreads * kOctet;
      if (at + kOctet <= count) {
        octet[k] = load_octet(from + at);
      } else {
        octet[k] = load_first(from + at, count - at);
      }
    }
  }
};

template <class T>
__device__ __forceinline__ void store_all(T* to, int64_t first, int64_t count,
                                          const Octet (&octet)[kOctetsAtOnce]) {
#pragma unroll
  for (int k = 0; k < kOctetsAtOnce; ++k) {
    const int64_t at = first + k * kThreads * kOctet;
    if (at + kOctet <= count) {
      store_octet(to + at, octet[k]);
    } else {
      store_first(to + at, octet[k], count - at);
    }
  }
}

__device__ __forceinline__ int64_t first_of_thread() {
  return (static_cast<int64_t>(blockIdx.x) * kThreads * kOctetsAtOnce + threadIdx.x) * kOctet;
}

// y may be x.
template <class T>
__global__ void __launch_bounds__(kThreads) gelu_kernel(const T* x, int64_t count, T* y) {
  const int64_t first = first_of_thread();
  Inputs<T> values(x, first, count);
#pragma unroll
  for (int k = 0; k < kOctetsAtOnce; ++k) {
#pragma unroll
    for (int i = 0; i < kOctet; ++i) values.octet[k].v[i] = Gelu<T>::of(values.octet[k].v[i]);
  }
  store_all(y, first, count, values.octet);
}

// dx may be dy.
template <class T>
__global__ void __launch_bounds__(kThreads)
    gelu_backward_kernel(const T* dy, const T* __restrict__ x, int64_t count, T* dx) {
  const int64_t first = first_of_thread();
  Inputs<T> gradients(dy, first, count);
  const Inputs<T> values(x, first, count);
#pragma unroll
  for (int k = 0; k < kOctetsAtOnce; ++k) {
#pragma unroll
    for (int i = 0; i < kOctet; ++i) {
      gradients.octet[k].v[i] = GeluGradient<T>::of(gradients.octet[k].v[i], values.octet[k].v[i]);
    }
  }
  store_all(dx, first, count, gradients.octet);
}

constexpr int64_t kBlockElements = int64_t{kThreads} * kOctetsAtOnce * kOctet;

}  // namespace

template <class T>
void gelu_tanh(const T* x, int64_t count, T* y, StreamView stream) {
  check_aligned(x, "gelu_tanh", "x");
  check_aligned(y, "gelu_tanh", "y");
  if (count == 0) return;
  gelu_kernel<T><<<grid_of(count, kBlockElements), kThreads, 0, stream_of(stream)>>>(x, count, y);
  check_launch("gelu_tanh");
}

template <class T>
void gelu_tanh_backward(const T* dy, const T* x, int64_t count, T* dx, StreamView stream) {
  check_aligned(dy, "gelu_tanh_backward", "dy");
  check_aligned(x, "gelu_tanh_backward", "x");
  check_aligned(dx, "gelu_tanh_backward", "dx");
  if (count == 0) return;
  gelu_backward_kernel<T>
      <<<grid_of(count, kBlockElements), kThreads, 0, stream_of(stream)>>>(dy, x, count, dx);
  check_launch("gelu_tanh_backward");
}

#define SPROCKET_INSTANTIATE(T)                                  \
  template void gelu_tanh<T>(const T*, int64_t, T*, StreamView); \
  template void gelu_tanh_backward<T>(const T*, const T*, int64_t, T*, StreamView);
SPROCKET_INSTANTIATE(float)
SPROCKET_INSTANTIATE(__nv_bfloat16)
SPROCKET_INSTANTIATE(__half)
#undef SPROCKET_INSTANTIATE

}  // namespace sprocket::kernels::cuda
