// Tiles of family sm_80: their layouts in shared memory, and which thread copies and multiplies
// what. Warps share a tile by rows of the left operand, 16 rows each.
#pragma once

#include <cute/tensor.hpp>

#include "kernels/cuda/segment_attention_elements.h"
#include "kernels/cuda/segment_attention_tiles.h"

namespace sprocket::kernels::cuda::sm80 {

using namespace cute;  // NOLINT: the language of layouts

// [rows][columns], row-major in atoms of 8 rows by 64 (or 32) columns whose 16-byte pieces are
// permuted: 8 pieces under each other lie in different banks.
template <int kRows, int kColumns>
struct TileLayout {
  static_assert(kColumns == 32 || kColumns % 64 == 0);
  static constexpr int kAtomColumns = kColumns == 32 ? 32 : 64;
  using Atom =
      decltype(composition(Swizzle < kColumns == 32 ? 2 : 3, 3, 3 > {},
                           Layout<Shape<_8, Int<kAtomColumns>>, Stride<Int<kAtomColumns>, _1>>{}));
  using Type = decltype(tile_to_shape(Atom{}, Shape<Int<kRows>, Int<kColumns>>{}));
  // The same memory as [columns][rows].
  using Transposed =
      decltype(composition(Type{}, make_layout(Shape<Int<kColumns>, Int<kRows>>{}, GenRowMajor{})));
};

template <class T, int kRows, int kColumns>
CUTE_HOST_DEVICE auto tile_at(T* memory) {
  return make_tensor(make_smem_ptr(memory), typename TileLayout<kRows, kColumns>::Type{});
}

template <class T, int kRows, int kColumns>
CUTE_HOST_DEVICE auto transposed_tile_at(T* memory) {
  return make_tensor(make_smem_ptr(memory), typename TileLayout<kRows, kColumns>::Transposed{});
}

// 16 bytes to a thread, 8 or 4 threads to a row.
template <class T, int kThreads, int kColumns>
struct TileCopy {
  static constexpr int kRowThreads = kColumns == 32 ? 4 : 8;
  using Type = decltype(make_tiled_copy(
      Copy_Atom<SM80_CP_ASYNC_CACHEGLOBAL_ZFILL<uint128_t>, T>{},
      Layout<Shape<Int<kThreads / kRowThreads>, Int<kRowThreads>>, Stride<Int<kRowThreads>, _1>>{},
      Layout<Shape<_1, _8>>{}));
};

// kWarps warps, 16 rows each.
template <class T, int kWarps>
struct WarpMma {
  using Operation =
      std::conditional_t<std::is_same_v<T, cutlass::bfloat16_t>, SM80_16x8x16_F32BF16BF16F32_TN,
                         SM80_16x8x16_F32F16F16F32_TN>;
  using Type = TiledMMA<MMA_Atom<Operation>, Layout<Shape<Int<kWarps>, _1, _1>>,
                        Tile<Int<16 * kWarps>, _16, _16>>;
};

template <class T>
using LoadRows = Copy_Atom<SM75_U32x4_LDSM_N, T>;
template <class T>
using LoadTransposed = Copy_Atom<SM75_U16x8_LDSM_T, T>;

}  // namespace sprocket::kernels::cuda::sm80
