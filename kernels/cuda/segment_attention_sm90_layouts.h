// Tiles and products of family sm_90. A product of a warpgroup has 64 rows; its right operand is in
// shared memory, the left one there, too, or in registers.
#pragma once

#include <cute/tensor.hpp>

#include "kernels/cuda/segment_attention_elements.h"
#include "kernels/cuda/segment_attention_sm90_tiles.h"

namespace sprocket::kernels::cuda::sm90 {

using namespace cute;  // NOLINT: the language of layouts

// The instruction for so many columns with a left operand in registers; how the right one lies.
template <class T, GMMA::Major kMajor, int kColumns>
constexpr auto operation() {
  constexpr bool kIsBFloat16 = std::is_same_v<T, cutlass::bfloat16_t>;
  constexpr auto kAlongK = GMMA::Major::K;
  static_assert(kColumns == 64 || kColumns == 128);
  if constexpr (kIsBFloat16 && kColumns == 64) {
    return SM90_64x64x16_F32BF16BF16_RS<kAlongK, kMajor>{};
  } else if constexpr (kIsBFloat16) {
    return SM90_64x128x16_F32BF16BF16_RS<kAlongK, kMajor>{};
  } else if constexpr (kColumns == 64) {
    return SM90_64x64x16_F32F16F16_RS<kAlongK, kMajor>{};
  } else {
    return SM90_64x128x16_F32F16F16_RS<kAlongK, kMajor>{};
  }
}

template <class T, int kHeadDim>
struct Layouts {
  // [key][column][stage]: right operand of S = Q K^T.
  template <int kStages>
  using Keys = decltype(tile_to_shape(GMMA::Layout_K_SW128_Atom<T>{},
                                      Shape<Int<kTileRows>, Int<kHeadDim>, Int<kStages>>{}));
  // [column][key][stage]: right operand of O = P V. The same memory for the same element.
  template <int kStages>
  using Values = decltype(tile_to_shape(GMMA::Layout_MN_SW128_Atom<T>{},
                                        Shape<Int<kHeadDim>, Int<kTileRows>, Int<kStages>>{},
                                        Step<_2, _1, _3>{}));

  using ScoresMma = decltype(make_tiled_mma(operation<T, GMMA::Major::K, kTileRows>()));
  using OutputMma = decltype(make_tiled_mma(operation<T, GMMA::Major::MN, kHeadDim>()));
};

// Of the backward, which takes kStep queries of a tile at a time: K Q^T and V dO^T from shared
// memory, then P^T dO and dS^T Q.
template <class T, int kHeadDim, int kStep>
struct GradientLayouts {
  static_assert(kStep == 32);
  template <int kStages>
  using Rows = typename Layouts<T, kHeadDim>::template Keys<kStages>;
  template <int kStages>
  using Columns = typename Layouts<T, kHeadDim>::template Values<kStages>;

  using ScoresMma = decltype(make_tiled_mma(
      std::conditional_t<std::is_same_v<T, cutlass::bfloat16_t>,
                         SM90_64x32x16_F32BF16BF16_SS<GMMA::Major::K, GMMA::Major::K>,
                         SM90_64x32x16_F32F16F16_SS<GMMA::Major::K, GMMA::Major::K>>{}));
  using GradientMma = typename Layouts<T, kHeadDim>::OutputMma;
};

}  // namespace sprocket::kernels::cuda::sm90
