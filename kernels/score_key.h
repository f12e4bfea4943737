// Integers that order (value, id) pairs, so that a selection has no ties left and compares in one
// instruction.
#pragma once

#include <bit>
#include <cstdint>
#include <type_traits>

namespace sprocket::kernels {

template <class A>
using ValueBits = std::conditional_t<std::is_same_v<A, float>, uint32_t, uint64_t>;
template <class A>
using ScoreKey = std::conditional_t<std::is_same_v<A, float>, uint64_t, unsigned __int128>;

// Ascending with the value; +0 and -0 are equal. Not for NaN. Never 0, never the largest integer.
template <class A>
ValueBits<A> ordered_bits(A value) {
  constexpr ValueBits<A> kSign = ValueBits<A>{1} << (8 * sizeof(A) - 1);
  const ValueBits<A> bits = std::bit_cast<ValueBits<A>>(value + A{0});
  return (bits & kSign) ? ~bits : (bits | kSign);
}

// From large to small: value descending (NaN last), then id ascending.
template <class A>
ScoreKey<A> descending_key(A value, uint32_t id) {
  const ValueBits<A> ordered = value == value ? ordered_bits(value) : 0;
  return (ScoreKey<A>{ordered} << 32) | static_cast<uint32_t>(~id);
}
template <class A>
uint32_t id_of_descending(ScoreKey<A> key) {
  return ~static_cast<uint32_t>(key);
}

// From small to large: value ascending (NaN last), then id ascending.
template <class A>
ScoreKey<A> ascending_key(A value, uint32_t id) {
  const ValueBits<A> ordered =
      value == value ? ordered_bits(value) : static_cast<ValueBits<A>>(~ValueBits<A>{0});
  return (ScoreKey<A>{ordered} << 32) | id;
}
template <class A>
uint32_t id_of_ascending(ScoreKey<A> key) {
  return static_cast<uint32_t>(key);
}

}  // namespace sprocket::kernels
