// Vectors of 64 bytes for kernels dispatched by isa.h; on narrower instruction sets the compiler
// splits them, lane by lane the same arithmetic.
//
// Reductions keep one partial sum per lane and add the lanes in one fixed tree, so that a result
// depends on the number of elements alone, never on alignment, threads or the instruction set's
// width.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "base/bfloat16.h"
#include "kernels/isa.h"

namespace sprocket::kernels {

template <class A>
struct LaneTypes;
template <>
struct LaneTypes<float> {
  typedef float Value __attribute__((vector_size(64)));
  typedef int32_t Integer __attribute__((vector_size(64)));
};
template <>
struct LaneTypes<double> {
  typedef double Value __attribute__((vector_size(64)));
  typedef int64_t Integer __attribute__((vector_size(64)));
};

template <class A>
using Lanes = typename LaneTypes<A>::Value;
template <class A>
using IntegerLanes = typename LaneTypes<A>::Integer;
template <class A>
inline constexpr int kLanes = 64 / sizeof(A);

template <class A>
SPROCKET_INLINE Lanes<A> broadcast(A value) {
  return Lanes<A>{} + value;
}

SPROCKET_INLINE Lanes<float> load(const float* from) {
  Lanes<float> value;
  std::memcpy(&value, from, sizeof value);
  return value;
}
SPROCKET_INLINE Lanes<double> load(const double* from) {
  Lanes<double> value;
  std::memcpy(&value, from, sizeof value);
  return value;
}
SPROCKET_INLINE Lanes<float> load(const BFloat16* from) {
  typedef uint16_t Half __attribute__((vector_size(32)));
  typedef uint32_t Word __attribute__((vector_size(64)));
  Half half;
  std::memcpy(&half, from, sizeof half);
  return (Lanes<float>)(__builtin_convertvector(half, Word) << 16);
}

SPROCKET_INLINE void store(float* to, Lanes<float> value) { std::memcpy(to, &value, sizeof value); }
SPROCKET_INLINE void store(double* to, Lanes<double> value) {
  std::memcpy(to, &value, sizeof value);
}
// Rounds to nearest even as BFloat16(float) does; a NaN stays a NaN.
SPROCKET_INLINE void store(BFloat16* to, Lanes<float> value) {
  typedef uint16_t Half __attribute__((vector_size(32)));
  typedef uint32_t Word __attribute__((vector_size(64)));
  const Word word = (Word)value;
  const Word rounded = (word + 0x7fffu + ((word >> 16) & 1u)) >> 16;
  const Word nan = (word >> 16) | 0x0040u;
  const Word result = (value == value) ? rounded : nan;
  const Half half = __builtin_convertvector(result, Half);
  std::memcpy(static_cast<void*>(to), &half, sizeof half);
}

// The first `count` elements, 0 <= count <= lanes; the other lanes are 0.
template <class T>
SPROCKET_INLINE auto load_first(const T* from, int64_t count) {
  using A = std::conditional_t<std::is_same_v<T, double>, double, float>;
  T padded[kLanes<A>] = {};
  if (count > 0) std::memcpy(static_cast<void*>(padded), from, count * sizeof(T));
  return load(padded);
}
template <class T, class V>
SPROCKET_INLINE void store_first(T* to, V value, int64_t count) {
  T padded[kLanes<std::conditional_t<std::is_same_v<T, double>, double, float>>];
  store(padded, value);
  std::memcpy(static_cast<void*>(to), padded, count * sizeof(T));
}

// Lane i + half is added to lane i, half by half. By shuffles, because a way through memory costs
// more than the products of a short row.
template <class A>
SPROCKET_INLINE A sum_of_lanes(Lanes<A> value) {
  const auto fold = [](auto v) __attribute__((always_inline)) {
    return __builtin_shufflevector(v, v, 0, 1, 2, 3) + __builtin_shufflevector(v, v, 4, 5, 6, 7);
  };
  const auto sum_of_four = [](auto v) __attribute__((always_inline)) {
    return (v[0] + v[2]) + (v[1] + v[3]);
  };
  if constexpr (kLanes<A> == 16) {
    return sum_of_four(fold(__builtin_shufflevector(value, value, 0, 1, 2, 3, 4, 5, 6, 7) +
                            __builtin_shufflevector(value, value, 8, 9, 10, 11, 12, 13, 14, 15)));
  } else {
    return sum_of_four(fold(value));
  }
}

template <class A>
SPROCKET_INLINE A largest_of_lanes(Lanes<A> value) {
  A largest = value[0];
  for (int i = 1; i < kLanes<A>; ++i) largest = value[i] > largest ? value[i] : largest;
  return largest;
}

// e^x. float: relative error below 2^-22 for normal results, correct overflow to inf and gradual
// underflow to 0, NaN stays NaN. double: the C library's, lane by lane.
SPROCKET_INLINE Lanes<float> exp_of_lanes(Lanes<float> x) {
  using V = Lanes<float>;
  using I = IntegerLanes<float>;
  x = x < -105.0f ? V{} - 105.0f : x;
  x = x > 89.0f ? V{} + 89.0f : x;
  const float kRound = 0x1.8p23f;
  const V shifted = x * 1.44269504088896341f + kRound;
  const V n = shifted - kRound;
  V r = x - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;
  V p = r * (1.0f / 5040) + (1.0f / 720);
  p = p * r + (1.0f / 120);
  p = p * r + (1.0f / 24);
  p = p * r + (1.0f / 6);
  p = p * r + 0.5f;
  p = p * r * r + r + 1.0f;
  const I exponent = (I)shifted - (I)(V{} + kRound);
  const I half = exponent >> 1;
  const V low = (V)((half + 127) << 23), high = (V)((exponent - half + 127) << 23);
  return p * low * high;
}
SPROCKET_INLINE Lanes<double> exp_of_lanes(Lanes<double> x) {
  for (int i = 0; i < kLanes<double>; ++i) x[i] = __builtin_exp(x[i]);
  return x;
}

}  // namespace sprocket::kernels
