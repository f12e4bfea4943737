// The join of VSA's branches for tensors on a CUDA device: the twin of kernels/branch_combine.h. It
// enqueues and returns.
#pragma once

#include <vector>

#include <ATen/core/Tensor.h>

namespace sprocket::parallel::device {

// Undefined: gates of 1, no coarse branch, a gradient that nobody wants.
struct BranchTensors {
  at::Tensor fine, fine_gate, coarse, coarse_gate;
};
void combine_branches(const BranchTensors& branches, const std::vector<int64_t>& offsets,
                      const at::Tensor& out_BLHD);
struct BranchGradientTensors {
  at::Tensor dcoarse, dcoarse_gate, dfine_gate, dfine;
};
void combine_branches_backward(const BranchTensors& branches, const std::vector<int64_t>& offsets,
                               const at::Tensor& dout_BLHD, const BranchGradientTensors& gradients);

}  // namespace sprocket::parallel::device
