// Copies into tiles of family sm_80, and products on them by mma.sync m16n8k16.
#pragma once

#include <cutlass/numeric_conversion.h>

#include "kernels/cuda/segment_attention_sm80_layouts.h"

namespace sprocket::kernels::cuda::sm80 {

// Begins to copy `rows` rows, zeros for the tile's others. Nothing is read past the rows.
template <int kThreads, int kRows, int kColumns, class T>
__device__ void copy_rows(const T* first, int64_t row_stride, int rows, T* memory) {
  const auto copy = typename TileCopy<T, kThreads, kColumns>::Type{};
  const auto thread = copy.get_thread_slice(threadIdx.x);
  constexpr auto shape = Shape<Int<kRows>, Int<kColumns>>{};
  const auto from = thread.partition_S(
      make_tensor(make_gmem_ptr(first), make_layout(shape, make_stride(row_stride, _1{}))));
  auto to = thread.partition_D(tile_at<T, kRows, kColumns>(memory));
  const auto places = thread.partition_S(make_identity_tensor(shape));
  CUTE_UNROLL
  for (int m = 0; m < size<1>(from); ++m) {
    cute::copy(copy.with(get<0>(places(0, m, 0)) < rows), from(_, m, _), to(_, m, _));
  }
}

// sums += left right^T, left [m][k] in registers, right [n][k] in shared memory read by `Load`.
template <class Load, class Sums, class Left, class Right, class Mma>
__device__ void multiply_registers(Sums& sums, const Left& left, const Right& right,
                                   const Mma& mma) {
  const auto copy = make_tiled_copy_B(Load{}, mma);
  const auto thread = copy.get_thread_slice(threadIdx.x);
  auto fragment = make_tensor<typename Right::value_type>(
      partition_shape_B(mma, make_shape(size<0>(right), size<1>(right))));
  const auto from = thread.partition_S(right);
  auto to = thread.retile_D(fragment);
  cute::copy(copy, from(_, _, _0{}), to(_, _, _0{}));
  CUTE_UNROLL
  for (int k = 0; k < size<2>(fragment); ++k) {
    if (k + 1 < size<2>(fragment)) cute::copy(copy, from(_, _, k + 1), to(_, _, k + 1));
    cute::gemm(mma, left(_, _, k), fragment(_, _, k), sums);
  }
}

// The same with both in shared memory.
template <class LoadLeft, class LoadRight, class Sums, class Left, class Right, class Mma>
__device__ void multiply(Sums& sums, const Left& left, const Right& right, const Mma& mma) {
  const auto copy_a = make_tiled_copy_A(LoadLeft{}, mma);
  const auto copy_b = make_tiled_copy_B(LoadRight{}, mma);
  const auto thread_a = copy_a.get_thread_slice(threadIdx.x);
  const auto thread_b = copy_b.get_thread_slice(threadIdx.x);
  auto a = make_tensor<typename Left::value_type>(
      partition_shape_A(mma, make_shape(size<0>(left), size<1>(left))));
  auto b = make_tensor<typename Right::value_type>(
      partition_shape_B(mma, make_shape(size<0>(right), size<1>(right))));
  const auto from_a = thread_a.partition_S(left);
  const auto from_b = thread_b.partition_S(right);
  auto to_a = thread_a.retile_D(a);
  auto to_b = thread_b.retile_D(b);
  cute::copy(copy_a, from_a(_, _, _0{}), to_a(_, _, _0{}));
  cute::copy(copy_b, from_b(_, _, _0{}), to_b(_, _, _0{}));
  CUTE_UNROLL
  for (int k = 0; k < size<2>(a); ++k) {
    if (k + 1 < size<2>(a)) {
      cute::copy(copy_a, from_a(_, _, k + 1), to_a(_, _, k + 1));
      cute::copy(copy_b, from_b(_, _, k + 1), to_b(_, _, k + 1));
    }
    cute::gemm(mma, a(_, _, k), b(_, _, k), sums);
  }
}

// The left operand's fragments of a tile in shared memory.
template <class Load, class Left, class Mma>
__device__ auto load_left(const Left& left, const Mma& mma) {
  const auto copy = make_tiled_copy_A(Load{}, mma);
  const auto thread = copy.get_thread_slice(threadIdx.x);
  auto fragment = make_tensor<typename Left::value_type>(
      partition_shape_A(mma, make_shape(size<0>(left), size<1>(left))));
  cute::copy(copy, thread.partition_S(left), thread.retile_D(fragment));
  return fragment;
}

// A product's sums, rounded, as the left operand of the next: two m16n8 results side by side are
// one m16k16 operand.
template <class T, class Sums>
__device__ auto round_to_left(const Sums& sums) {
  const auto pairs = logical_divide(sums.layout(), Shape<X, X, _2>{});  // ((2, 2), m, (2, n / 2))
  const auto layout =
      make_layout(make_layout(get<0>(pairs), get<2, 0>(pairs)), get<1>(pairs), get<2, 1>(pairs));
  constexpr int kSize = decltype(size(sums))::value;
  const cutlass::NumericArrayConverter<T, float, kSize> convert;
  const auto rounded = convert(*reinterpret_cast<const cutlass::Array<float, kSize>*>(sums.data()));
  auto result = make_tensor<T>(layout);
  cute::copy(make_tensor(make_rmem_ptr<T>(&rounded), layout), result);
  return result;
}

}  // namespace sprocket::kernels::cuda::sm80
