// Products of a warpgroup: begun, under way while it does something else, finished.
#pragma once

#include <cutlass/numeric_conversion.h>

#include "kernels/cuda/segment_attention_sm90_layouts.h"

namespace sprocket::kernels::cuda::sm90 {

// Begins sums = left right^T, or adds to the sums: a group of its own. `left` is [value][1][step],
// in registers or shared memory, `right` [value][step].
template <bool kAdds, class Mma, class Left, class Right, class Sums>
__device__ void start_product(Mma& mma, Left& left, const Right& right, Sums& sums) {
  if constexpr (is_same_v<typename Left::value_type, typename Mma::ValTypeA>) {
    warpgroup_fence_operand(left);
  }
  warpgroup_fence_operand(sums);
  warpgroup_arrive();
  mma.accumulate_ = kAdds ? GMMA::ScaleOut::One : GMMA::ScaleOut::Zero;
  CUTE_UNROLL
  for (int k = 0; k < size<2>(left); ++k) {
    cute::gemm(mma, left(_, 0, k), right(_, k), sums(_, 0, 0));
    mma.accumulate_ = GMMA::ScaleOut::One;
  }
  warpgroup_commit_batch();
}

// Waits until at most `kLeft` of the products begun are unfinished; `sums` are ready then.
template <int kLeft, class Sums>
__device__ void finish_product(Sums& sums) {
  warpgroup_wait<kLeft>();
  warpgroup_fence_operand(sums);
}

// The sums of a product, rounded, are the left operand of the next in the same places.
template <class Sums, class Left>
__device__ void round_to(const Sums& sums, Left& left) {
  using T = typename Left::value_type;
  constexpr int kSize = decltype(size(Sums{}))::value;
  const cutlass::NumericArrayConverter<T, float, kSize> convert;
  const auto rounded = convert(*reinterpret_cast<const cutlass::Array<float, kSize>*>(sums.data()));
  cute::copy(make_tensor(make_rmem_ptr<T>(&rounded), left.layout()), left);
}

}  // namespace sprocket::kernels::cuda::sm90
