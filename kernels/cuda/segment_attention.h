// Segment attention on a device: the twin of kernels/segment_attention.h, whose contract holds here
// (formula, LSE, empty rows, passes that continue each other, query_rows, blocks without rows).
//
// bf16 or fp16 elements, head dimension 64 or 128, blocks of at most 128 rows. Products accumulate
// in fp32; scores, softmax statistics, LSE and delta are fp32; P and the gradient of the scores are
// rounded to the element type for the products. Two runs are bitwise equal: every sum has one order
// (ascending block ids), and there are no atomics.
//
// Calls only enqueue work on `stream` and allocate nothing. They throw ConfigError for what no
// kernel does and CudaError when a launch fails. A table or map whose contents exceed the problem's
// bounds (max_query_rows, max_kv_rows, max_row_pairs) ends the kernel with a trap, an error of the
// device that the next call of the CUDA runtime reports.
#pragma once

#include <cstdint>

#include "base/stream.h"
#include "kernels/cuda/segment_attention_plan.h"
#include "kernels/cuda/segment_attention_problem.h"

namespace sprocket::kernels::cuda {

// The best family for a device of compute capability major.minor. Throws ConfigError below 8.0.
KernelFamily kernel_family(int major, int minor);

enum class OutputType { kFloat32, kElement };

struct SegmentAttentionOutput {
  DeviceRows<void> out;  // [B, Lq, H, D]
  OutputType type = OutputType::kFloat32;
  float* lse = nullptr;  // [B, H, Lq] contiguous
  // Merges into what a former pass (or 0 and -inf) left in out, which must be fp32, and lse.
  bool accumulate = false;
};

void segment_attention_forward(const SegmentAttentionProblem& problem,
                               const SegmentAttentionOutput& output, StreamView stream);

// delta[b, h, row] = sum_d dout * out, [B, H, rows] contiguous.
struct SegmentAttentionDelta {
  Element element = Element::kBFloat16;  // of dout
  OutputType type = OutputType::kFloat32;
  int batch = 0, heads = 0, head_dim = 0;
  int64_t rows = 0;
  DeviceRows<const void> out, dout;
  float* delta = nullptr;
};

void segment_attention_delta(const SegmentAttentionDelta& problem, StreamView stream);

struct SegmentAttentionGradients {
  DeviceInverseTable inverse;  // of the problem's table
  DeviceRows<const void> dout;
  const float* lse = nullptr;    // [B, H, Lq], of all passes together
  const float* delta = nullptr;  // likewise
  DeviceRows<float> dq;
  DeviceKvGradBuffer dkv[kMaxKvBuffers];  // by buffer
};

// Adds to dq, dk and dv. Rows of dk and dv that belong to different (batch, head, block) are
// different memory. The workspace has plan.workspace_bytes, any contents, 16-byte aligned.
void segment_attention_backward(const SegmentAttentionProblem& problem,
                                const SegmentAttentionGradients& gradients,
                                const SegmentAttentionBackwardPlan& plan, void* workspace,
                                StreamView stream);

}  // namespace sprocket::kernels::cuda
