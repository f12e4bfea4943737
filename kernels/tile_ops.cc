#include "kernels/tile_ops.h"

#include "kernels/isa.h"
#include "kernels/lanes.h"
#include "kernels/tile_ops_body.h"

namespace sprocket::kernels {
namespace {

struct LaneMath {
  using V = Lanes<float>;
  static constexpr bool kBf16 = false;
  SPROCKET_INLINE static V broadcast(float value) { return V{} + value; }
  SPROCKET_INLINE static V load(const float* from) { return kernels::load(from); }
  SPROCKET_INLINE static void store(float* to, V value) { kernels::store(to, value); }
  SPROCKET_INLINE static V multiply_add(V a, V b, V c) { return a * b + c; }
  SPROCKET_INLINE static V max(V a, V b) { return a > b ? a : b; }
  SPROCKET_INLINE static bool any_greater(V a, V b) {
    const IntegerLanes<float> greater = a > b;
    int any = 0;
    for (int i = 0; i < 16; ++i) any |= greater[i];
    return any != 0;
  }
  // 0 below 2^-126; NaN stays NaN. kRound leaves the exponent, biased, in the low bits.
  SPROCKET_INLINE static V exp2(V x) {
    const float kRound = 0x1.8p23f + 127;
    V y = x < -126.0f ? V{} - 126.0f : x;
    y = y > 127.0f ? V{} + 127.0f : y;
    const V shifted = y + kRound;
    const V power = (V)((IntegerLanes<float>)shifted << 23);
    const V result = exp2_polynomial<LaneMath>(y - (shifted - kRound)) * power;
    return x < -126.0f ? V{} : result;
  }
};

void softmax(const SoftmaxTile& tile) { run_on_isa<SoftmaxKernel<LaneMath>, SoftmaxTile>(tile); }
void gradient(const GradientTile& tile) {
  run_on_isa<GradientKernel<LaneMath>, GradientTile>(tile);
}

}  // namespace

TileOps tile_ops() {
  if (current_isa() == Isa::kAvx512) return internal::avx512_tile_ops();
  return {softmax, gradient};
}

bool has_bf16_products() {
  return current_isa() == Isa::kAvx512 && __builtin_cpu_supports("avx512bf16");
}

}  // namespace sprocket::kernels
