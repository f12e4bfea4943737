// Pieces of rows as fp32 values in registers.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace sprocket::kernels::cuda {

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(__half x) { return __half2float(x); }
__device__ inline float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }

// kCount elements side by side; aligned to their size, so that they are one access.
template <class T, int kCount>
struct alignas(sizeof(T) * kCount) RowVector {
  T values[kCount];
};

// Elements of T in 16 bytes.
template <class T>
constexpr int kWideVector = 16 / sizeof(T);

}  // namespace sprocket::kernels::cuda
