// One lane of exp_of_lanes(Lanes<float>) (kernels/lanes.h) with its fused multiply-adds written
// out: the bits that the host gets where the processor has them. For host and device code, C++17.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/cuda/host_device.h"

namespace sprocket::kernels {

SPROCKET_HOST_DEVICE inline float exp_of_lane(float x) {
  x = x < -105.0f ? -105.0f : x;
  x = x > 89.0f ? 89.0f : x;
  const float kRound = 0x1.8p23f;
  const float shifted = fmaf(x, 1.44269504088896341f, kRound);
  const float n = shifted - kRound;
  float r = fmaf(-n, 0.693359375f, x);
  r = fmaf(n, 2.12194440e-4f, r);
  float p = fmaf(r, 1.0f / 5040, 1.0f / 720);
  p = fmaf(p, r, 1.0f / 120);
  p = fmaf(p, r, 1.0f / 24);
  p = fmaf(p, r, 1.0f / 6);
  p = fmaf(p, r, 0.5f);
  p = fmaf(p * r, r, r) + 1.0f;
  const int32_t exponent =
      __builtin_bit_cast(int32_t, shifted) - __builtin_bit_cast(int32_t, kRound);
  const int32_t half = exponent >> 1;
  // Unsigned: the exponent of what is no number is none either, and its product is thrown away.
  const float low = __builtin_bit_cast(float, static_cast<uint32_t>(half + 127) << 23);
  const float high = __builtin_bit_cast(float, static_cast<uint32_t>(exponent - half + 127) << 23);
  return p * low * high;
}

}  // namespace sprocket::kernels
