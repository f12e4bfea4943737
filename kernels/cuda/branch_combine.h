// Joins VSA's branches on the device, as kernels/branch_combine.h, where the formulas are:
// out = fine * fine_gate + coarse[block of the row] * coarse_gate.
//
// T is float, __nv_bfloat16 or __half; coarse means, fine outputs and sums are float. Everything is
// in device memory; views are [B, L, H, D] with data and strides that are multiples of 16 bytes;
// coarse is contiguous [B, H, N, D]; offsets: [N + 1] rows of each block. A gate with null data is
// 1; null coarse is 0. Asynchronous on `stream`; the same bits on every run.
//
// Errors: ConfigError for a head_dim that is not a multiple of 8, CudaError when the launch fails,
// InternalError for misaligned memory.
#pragma once

#include <cstdint>

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "base/stream.h"
#include "kernels/head_view.h"

namespace sprocket::kernels::cuda {

template <class T>
struct Branches {
  HeadView<const float> fine;
  HeadView<const T> fine_gate;
  const float* coarse = nullptr;
  HeadView<const T> coarse_gate;
  const int64_t* offsets = nullptr;
  int blocks = 0;
  int batch = 0, heads = 0, head_dim = 0;
};

template <class T>
void combine_branches(const Branches<T>& branches, HeadView<T> out, StreamView stream);

// Overwrites what has data: dcoarse[b, h, i] = sum over the block's rows, ascending, of
// dout * coarse_gate; dcoarse_gate = dout * coarse; dfine_gate = dout * fine; dfine = dout *
// fine_gate, which is dout itself without a fine gate.
template <class T>
struct BranchGradients {
  float* dcoarse = nullptr;
  HeadView<T> dcoarse_gate;
  HeadView<T> dfine_gate;
  HeadView<T> dfine;
};
template <class T>
void combine_branches_backward(const Branches<T>& branches, HeadView<const T> dout,
                               const BranchGradients<T>& gradients, StreamView stream);

}  // namespace sprocket::kernels::cuda
