// Integers that order (value, id) pairs, so that a selection has no ties left and compares in one
// instruction. C++17; device code calls constexpr functions.
#pragma once

#include <cstdint>
#include <type_traits>

#include "kernels/isa.h"

namespace sprocket::kernels {

template <class A>
using ValueBits = std::conditional_t<std::is_same_v<A, float>, uint32_t, uint64_t>;
template <class A>
using ScoreKey = std::conditional_t<std::is_same_v<A, float>, uint64_t, unsigned __int128>;

// Ascending with the value, all of them above 0; +0 and -0 are equal; NaN gives 0.
template <class A>
SPROCKET_INLINE constexpr ValueBits<A> ordered_bits(A value) {
  constexpr int kSignBit = 8 * sizeof(A) - 1;
  const ValueBits<A> bits = __builtin_bit_cast(ValueBits<A>, value + A{0});
  const ValueBits<A> all_if_negative = ValueBits<A>{0} - (bits >> kSignBit);
  const ValueBits<A> ordered = bits ^ (all_if_negative | (ValueBits<A>{1} << kSignBit));
  return value == value ? ordered : 0;
}

// From large to small: value descending (NaN last), then id ascending.
template <class A>
constexpr ScoreKey<A> descending_key(ValueBits<A> ordered, uint32_t id) {
  return (ScoreKey<A>{ordered} << 32) | static_cast<uint32_t>(~id);
}
template <class A>
constexpr uint32_t id_of_descending(ScoreKey<A> key) {
  return ~static_cast<uint32_t>(key);
}

// From small to large: value ascending (NaN last), then id ascending.
template <class A>
constexpr ScoreKey<A> ascending_key(ValueBits<A> ordered, uint32_t id) {
  return (ScoreKey<A>{static_cast<ValueBits<A>>(ordered - 1)} << 32) | id;
}
template <class A>
constexpr uint32_t id_of_ascending(ScoreKey<A> key) {
  return static_cast<uint32_t>(key);
}

}  // namespace sprocket::kernels
