// Number formats and rounding.
#pragma once

#include <bit>
#include <cfenv>
#include <cmath>
#include <cstdint>
#include <string_view>

namespace sprocket::cuda_simulator {

// Bits of a 16-bit float, as a lane's value.
struct Half {
  uint16_t bits;
};
struct Bfloat {
  uint16_t bits;
};

// Two of them in a register, the first in the lower half.
template <typename H>
struct Pair {
  uint32_t bits;
};

// Half, Bfloat and pairs of them: what they consist of, and the word that holds their bits.
template <typename T>
struct ShortFloat {
  static constexpr bool kIs = false, kPair = false;
};
template <typename H>
struct ShortElement {
  static constexpr bool kIs = true, kPair = false;
  using Element = H;
  using Word = uint16_t;
};
template <>
struct ShortFloat<Half> : ShortElement<Half> {};
template <>
struct ShortFloat<Bfloat> : ShortElement<Bfloat> {};
template <typename H>
struct ShortFloat<Pair<H>> {
  static constexpr bool kIs = true, kPair = true;
  using Element = H;
  using Word = uint32_t;
};

inline float to_float(Half h) { return static_cast<float>(std::bit_cast<_Float16>(h.bits)); }
inline float to_float(Bfloat b) { return std::bit_cast<float>(uint32_t{b.bits} << 16); }
inline float to_float(float f) { return f; }

constexpr uint32_t kNan32 = 0x7fffffff;

// To the nearest, ties to even; any NaN becomes 0x7fff.
inline uint16_t half_bits(double value) {
  if (value != value) return 0x7fff;
  return std::bit_cast<uint16_t>(static_cast<_Float16>(value));
}
inline uint16_t half_bits(float value) {
  if (value != value) return 0x7fff;
  return std::bit_cast<uint16_t>(static_cast<_Float16>(value));
}
inline uint16_t bfloat_bits(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  return value != value ? 0x7fff : static_cast<uint16_t>(rounded);
}

template <typename T>
T from_float(float value);
template <>
inline float from_float<float>(float value) {
  return value;
}
template <>
inline Half from_float<Half>(float value) {
  return {half_bits(value)};
}
template <>
inline Bfloat from_float<Bfloat>(float value) {
  return {bfloat_bits(value)};
}

// a + b, inexact results with an odd last bit: rounding the result again to a shorter format is
// then one rounding.
inline double add_to_odd(double a, double b) {
  const double s = a + b;
  const double bb = s - a;
  const double error = (a - (s - bb)) + (b - bb);
  const uint64_t bits = std::bit_cast<uint64_t>(s);
  if (error == 0 || error != error || (bits & 1)) return s;
  // The neighbour on the side of the error is odd.
  return std::bit_cast<double>((error > 0) == (s > 0) ? bits + 1 : bits - 1);
}
// A double to float without a second rounding to come: inexact results get an odd last bit.
inline float to_float_odd(double value) {
  const float f = static_cast<float>(value);
  if (static_cast<double>(f) == value || value != value) return f;
  const uint32_t bits = std::bit_cast<uint32_t>(f);
  if (bits & 1) return f;
  return std::bit_cast<float>((value > f) == (f > 0 || (f == 0 && value > 0)) ? bits + 1
                                                                              : bits - 1);
}

inline float flush(float value) {
  return std::fpclassify(value) == FP_SUBNORMAL ? std::copysign(0.0f, value) : value;
}
inline double flush(double value) { return value; }

template <typename T>
T saturate_to_one(T value) {
  if (!(value > 0)) return 0;  // NaN too
  return value > 1 ? 1 : value;
}

// The rounding of the host while it lives. Only in functions that are not inlined into others.
class Rounding {
 public:
  explicit Rounding(int mode) : former_(std::fegetround()) { std::fesetround(mode); }
  ~Rounding() { std::fesetround(former_); }

 private:
  int former_;
};
inline int rounding_mode(std::string_view name) {
  if (name == "rz") return FE_TOWARDZERO;
  if (name == "rm") return FE_DOWNWARD;
  if (name == "rp") return FE_UPWARD;
  return FE_TONEAREST;
}

}  // namespace sprocket::cuda_simulator
