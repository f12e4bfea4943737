// Dense passes (dense_rows.h) on a CUDA device, through LibTorch's operators. They enqueue and
// return; a CUDA build alone has them.
//
// Forward: cuDNN. Of LibTorch's dense kernels it is the fast one on Hopper and later, and its
// forward writes every value once. Backward: FlashAttention in its deterministic form, since
// LibTorch does not ask cuDNN for a fixed order of the sums of dQ. The two meet in (out, lse)
// alone, whose LSE both define as the segment kernel does: the natural logarithm, scale inside,
// fp32.
//
// Conventions, of the operators of LibTorch 2.11: tensors [B, H, rows, D] with any strides whose
// last one is 1, and results in the layout of their inputs; cuDNN's LSE [B, H, Lq] or [B, H, Lq,
// 1], FlashAttention's [B, H, Lq] contiguous, neither with padded rows; undefined cumulative
// lengths for sequences of one length; a random state that is not read without dropout.
#pragma once

#include "parallel/attention/dense_rows.h"

namespace sprocket::parallel::device {

// bf16 or fp16, heads of 64 or 128 channels. A first pass into an untouched output costs a copy.
void dense_forward(const QuerySide& query, const std::vector<KvTensors>& kv,
                   const std::vector<DenseRows>& rows, PassOutput& output);

// output.out_BLHD is defined; it is rounded to the type of q. The parts of dq, dk and dv are
// rounded to the type of q before they are added. Takes fp32 memory of dq's shape, times the number
// of the device's processors for each head of a batch.
void dense_backward(const QuerySide& query, const std::vector<KvTensors>& kv,
                    const std::vector<DenseRows>& rows, const OutputSide& output,
                    const at::Tensor& dq_BLHD, const std::vector<KvTensors>& dkv);

}  // namespace sprocket::parallel::device
