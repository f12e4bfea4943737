// Joins VSA's branches: out = fine * fine_gate + coarse[block of the row] * coarse_gate.
//
// Views are [B, L, H, D]; coarse is contiguous [B, H, N, D]; offsets: [N + 1] rows of each block. A
// gate with null data is 1; null coarse is 0. Sums are made in the accumulator type.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/segment_attention.h"

namespace sprocket::kernels {

template <class T>
struct Branches {
  HeadView<const Accumulator<T>> fine;
  HeadView<const T> fine_gate;
  const Accumulator<T>* coarse = nullptr;
  HeadView<const T> coarse_gate;
  std::span<const int64_t> offsets;
  int batch = 0, heads = 0, head_dim = 0;
  int threads = 1;
};

template <class T>
void combine_branches(const Branches<T>& branches, HeadView<T> out);

// Overwrites what has data: dcoarse[b, h, i] = sum over the block's rows, ascending, of
// dout * coarse_gate; dcoarse_gate = dout * coarse; dfine_gate = dout * fine; dfine = dout *
// fine_gate, which is dout itself without a fine gate.
template <class T>
struct BranchGradients {
  Accumulator<T>* dcoarse = nullptr;
  HeadView<T> dcoarse_gate;
  HeadView<T> dfine_gate;
  HeadView<T> dfine;
};
template <class T>
void combine_branches_backward(const Branches<T>& branches, HeadView<const T> dout,
                               const BranchGradients<T>& gradients);

}  // namespace sprocket::kernels
