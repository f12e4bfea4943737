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

// The same with both operands in shared memory.
template <class T, GMMA::Major kLeftMajor, GMMA::Major kMajor, int kColumns>
constexpr auto operation_on_shared() {
  constexpr bool kIsBFloat16 = std::is_same_v<T, cutlass::bfloat16_t>;
  static_assert(kColumns == 32 || kColumns == 64 || kColumns == 128);
  if constexpr (kIsBFloat16 && kColumns == 32) {
    return SM90_64x32x16_F32BF16BF16_SS<kLeftMajor, kMajor>{};
  } else if constexpr (kIsBFloat16 && kColumns == 64) {
    return SM90_64x64x16_F32BF16BF16_SS<kLeftMajor, kMajor>{};
  } else if constexpr (kIsBFloat16) {
    return SM90_64x128x16_F32BF16BF16_SS<kLeftMajor, kMajor>{};
  } else if constexpr (kColumns == 32) {
    return SM90_64x32x16_F32F16F16_SS<kLeftMajor, kMajor>{};
  } else if constexpr (kColumns == 64) {
    return SM90_64x64x16_F32F16F16_SS<kLeftMajor, kMajor>{};
  } else {
    return SM90_64x128x16_F32F16F16_SS<kLeftMajor, kMajor>{};
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

  using ScoresMma =
      decltype(make_tiled_mma(operation_on_shared<T, GMMA::Major::K, GMMA::Major::K, kStep>()));
  using GradientMma = typename Layouts<T, kHeadDim>::OutputMma;
};

// Of dQ = dS K. The gradients of the scores come key by key, 64 queries to a row of a tile; where a
// warpgroup has the rows of two query blocks, 32 to a row of each half.
template <class T, int kHeadDim, int kQueryRows>
struct QueryGradientLayouts {
  using Panels = std::conditional_t<slot_panel_columns(kQueryRows) == kGroupRows,
                                    GMMA::Layout_MN_SW128_Atom<T>, GMMA::Layout_MN_SW64_Atom<T>>;
  // [query][key][tile]
  template <int kTiles>
  using ScoreGradients = decltype(tile_to_shape(
      Panels{}, Shape<Int<kGroupRows>, Int<kTileRows>, Int<kTiles>>{}, Step<_2, _1, _3>{}));
  // [column][key][stage]
  template <int kStages>
  using Keys = typename Layouts<T, kHeadDim>::template Values<kStages>;

  using Mma = decltype(make_tiled_mma(
      operation_on_shared<T, GMMA::Major::MN, GMMA::Major::MN, kHeadDim>()));
};

}  // namespace sprocket::kernels::cuda::sm90
