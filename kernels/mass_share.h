// A share of a row's mass in integers, for host and device code. C++17; device code calls constexpr
// functions.
#pragma once

#include <cstdint>

namespace sprocket::kernels {

// mantissa * 2^exponent; the highest bit of the mantissa is set, or the share is 0.
struct ScaledShare {
  uint64_t mantissa = 0;
  int32_t exponent = 0;

  // share * total, rounded to 64 bits and then to a double, both times to nearest even: what
  // extended precision gives. total: 0 or a normal number above it.
  constexpr double of(double total) const {
    if (mantissa == 0 || total == 0) return 0;
    const auto bits = __builtin_bit_cast(uint64_t, total);
    const uint64_t factor = (bits << 11) | (uint64_t{1} << 63);
    int64_t scale = exponent + static_cast<int64_t>(bits >> 52) - 1023 - 63 + 64;
    unsigned __int128 product = static_cast<unsigned __int128>(mantissa) * factor;
    if ((product >> 127) == 0) {
      product <<= 1;
      --scale;
    }
    auto high = static_cast<uint64_t>(product >> 64);
    const auto low = static_cast<uint64_t>(product);
    constexpr uint64_t kHalf = uint64_t{1} << 63;
    if (low > kHalf || (low == kHalf && high % 2 == 1)) {
      ++high;
      if (high == 0) {
        high = kHalf;
        ++scale;
      }
    }
    return static_cast<double>(high) *
           __builtin_bit_cast(double, static_cast<uint64_t>(scale + 1023) << 52);
  }
};

}  // namespace sprocket::kernels
