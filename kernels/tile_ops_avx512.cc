// tile_ops.h with AVX-512 intrinsics. Everything between the pragmas has internal linkage, so that
// no AVX-512 copy of a shared function can reach a processor without it.
#include <immintrin.h>

#include "kernels/isa.h"
#include "kernels/tile_ops.h"

#pragma GCC push_options
#pragma GCC target("arch=x86-64-v4,avx512bf16")

#include "kernels/tile_ops_body.h"

namespace sprocket::kernels {
namespace {

template <bool kHalfOutputs>
struct Avx512Math {
  using V = __m512;
  static constexpr bool kBf16 = kHalfOutputs;
  SPROCKET_INLINE static V broadcast(float value) { return _mm512_set1_ps(value); }
  SPROCKET_INLINE static V load(const float* from) { return _mm512_loadu_ps(from); }
  SPROCKET_INLINE static void store(float* to, V value) { _mm512_storeu_ps(to, value); }
  SPROCKET_INLINE static V multiply_add(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
  SPROCKET_INLINE static V max(V a, V b) { return _mm512_max_ps(a, b); }
  SPROCKET_INLINE static bool any_greater(V a, V b) {
    return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ) != 0;
  }
  // scalef saturates to 0 and inf by itself.
  SPROCKET_INLINE static V exp2(V x) {
    const V n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    return _mm512_scalef_ps(exp2_polynomial<Avx512Math>(_mm512_sub_ps(x, n)), n);
  }
  SPROCKET_INLINE static void store_half(BFloat16* to, V value) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), (__m256i)_mm512_cvtneps_pbh(value));
  }
  // Words 0..15 of the pair are `even`, 16..31 `odd`.
  SPROCKET_INLINE static void store_pairs(BFloat16* to, V even, V odd) {
    const __m512i order =
        _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                         21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    const __m512i both = (__m512i)_mm512_cvtne2ps_pbh(odd, even);
    _mm512_storeu_si512(to, _mm512_permutexvar_epi16(order, both));
  }
};

void softmax(const SoftmaxTile& tile) {
  if (tile.pairs == nullptr) {
    SoftmaxKernel<Avx512Math<false>>::run(tile);
  } else {
    SoftmaxKernel<Avx512Math<true>>::run(tile);
  }
}
void gradient(const GradientTile& tile) {
  if (tile.p == nullptr) {
    GradientKernel<Avx512Math<false>>::run(tile);
  } else {
    GradientKernel<Avx512Math<true>>::run(tile);
  }
}

}  // namespace
}  // namespace sprocket::kernels
#pragma GCC pop_options

namespace sprocket::kernels::internal {
TileOps avx512_tile_ops() { return {softmax, gradient}; }
}  // namespace sprocket::kernels::internal
