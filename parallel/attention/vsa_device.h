// VSA's coarse branch, its selection and the join of its branches for tensors on a CUDA device: the
// twins of what vsa_method.cc and block_summaries.cc do on the processor, with the score of the
// block means. They enqueue and return, but for the selection, which the host reads.
//
// Block means, coarse outputs and their gradients are fp32 [B, H, blocks, D].
#pragma once

#include <vector>

#include <ATen/core/Tensor.h>

#include "kernels/prefix_rule.h"
#include "kernels/segment_table.h"

namespace sprocket::parallel::device {

at::Tensor block_means(const at::Tensor& x_BLHD, const std::vector<int64_t>& offsets);
void add_block_mean_gradients(const at::Tensor& dmeans, const std::vector<int64_t>& offsets,
                              const at::Tensor& dx_BLHD);

struct CoarseTensors {
  at::Tensor q, k, v;
  double scale = 1;
  int first_query_block = 0;
  int prefix_blocks = 0;
  kernels::PrefixRule prefix_rule = kernels::PrefixRule::kExempt;
};

// The coarse output goes to `out` unless that is undefined. Waits for the table.
kernels::SegmentTable select_and_attend(const CoarseTensors& coarse, int k, const at::Tensor& out);
void coarse_attend(const CoarseTensors& coarse, const at::Tensor& out);
// Overwrites dq, dk and dv.
void coarse_attend_backward(const CoarseTensors& coarse, const at::Tensor& dout,
                            const at::Tensor& dq, const at::Tensor& dk, const at::Tensor& dv);

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
