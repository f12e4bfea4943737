// Eight consecutive elements in registers, as floats, moved by accesses of 16 bytes.
//
// Elements are float, __nv_bfloat16 or __half; conversions round to nearest even. Addresses are
// 16-byte aligned.
#pragma once

#include <cstdint>

#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace sprocket::kernels::cuda {

inline constexpr int kOctet = 8;

struct Octet {
  float v[kOctet];
};

__device__ __forceinline__ Octet octet_of(float value) {
  Octet octet;
#pragma unroll
  for (int i = 0; i < kOctet; ++i) octet.v[i] = value;
  return octet;
}

__device__ __forceinline__ float to_float(float value) { return value; }
__device__ __forceinline__ float to_float(__nv_bfloat16 value) { return __bfloat162float(value); }
__device__ __forceinline__ float to_float(__half value) { return __half2float(value); }

template <class T>
__device__ __forceinline__ T from_float(float value) {
  if constexpr (sizeof(T) == 4) {
    return value;
  } else {
    return T(value);
  }
}

__device__ __forceinline__ float2 unpack_pair(uint32_t bits, __nv_bfloat16) {
  return {__uint_as_float(bits << 16), __uint_as_float(bits & 0xffff0000u)};
}
__device__ __forceinline__ float2 unpack_pair(uint32_t bits, __half) {
  return __half22float2(*reinterpret_cast<const __half2*>(&bits));
}
__device__ __forceinline__ uint32_t pack_pair(float low, float high, __nv_bfloat16) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}
__device__ __forceinline__ uint32_t pack_pair(float low, float high, __half) {
  const __half2 pair = __floats2half2_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

__device__ __forceinline__ Octet load_octet(const float* from) {
  const float4 low = reinterpret_cast<const float4*>(from)[0];
  const float4 high = reinterpret_cast<const float4*>(from)[1];
  return {{low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w}};
}
template <class T>
__device__ __forceinline__ Octet load_octet(const T* from) {
  const uint4 words = *reinterpret_cast<const uint4*>(from);
  const float2 a = unpack_pair(words.x, T{}), b = unpack_pair(words.y, T{}),
               c = unpack_pair(words.z, T{}), d = unpack_pair(words.w, T{});
  return {{a.x, a.y, b.x, b.y, c.x, c.y, d.x, d.y}};
}

__device__ __forceinline__ void store_octet(float* to, const Octet& octet) {
  const float* v = octet.v;
  reinterpret_cast<float4*>(to)[0] = {v[0], v[1], v[2], v[3]};
  reinterpret_cast<float4*>(to)[1] = {v[4], v[5], v[6], v[7]};
}
template <class T>
__device__ __forceinline__ void store_octet(T* to, const Octet& octet) {
  const float* v = octet.v;
  *reinterpret_cast<uint4*>(to) = {pack_pair(v[0], v[1], T{}), pack_pair(v[2], v[3], T{}),
                                   pack_pair(v[4], v[5], T{}), pack_pair(v[6], v[7], T{})};
}

// The first `count` elements alone, one by one; the others are 0. Any alignment.
template <class T>
__device__ __forceinline__ Octet load_first(const T* from, int64_t count) {
  Octet octet = octet_of(0);
#pragma unroll
  for (int i = 0; i < kOctet; ++i) {
    if (i < count) octet.v[i] = to_float(from[i]);
  }
  return octet;
}
template <class T>
__device__ __forceinline__ void store_first(T* to, const Octet& octet, int64_t count) {
#pragma unroll
  for (int i = 0; i < kOctet; ++i) {
    if (i < count) to[i] = from_float<T>(octet.v[i]);
  }
}

}  // namespace sprocket::kernels::cuda
