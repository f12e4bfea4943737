// What the kernels of every family are launched with, and the launches of each.
#pragma once

#include "kernels/cuda/segment_attention_problem.h"

struct CUstream_st;

namespace sprocket::kernels::cuda {

struct ForwardArguments {
  SegmentAttentionProblem problem;
  DeviceRows<void> out;
  float* lse;
  bool out_is_float;
  bool accumulate;
};

// One group of a backward (segment_attention_plan.h).
struct BackwardArguments {
  SegmentAttentionProblem problem;  // first_head to last_head are the group's
  DeviceInverseTable inverse;
  DeviceRows<const void> dout;
  const float* lse;
  const float* delta;
  DeviceRows<float> dq;
  DeviceKvGradBuffer dkv[kMaxKvBuffers];
  int first_query_block, last_query_block;
  void* slots;
  int64_t slot_count;
};

struct DeltaArguments {
  Element element;
  bool out_is_float;
  int head_dim, heads;
  int rows, all_rows;  // of one (batch, head), of all
  DeviceRows<const void> out, dout;
  float* delta;
};

// For every family.
void launch_delta(const DeltaArguments& arguments, CUstream_st* stream);

template <Element kElement, int kHeadDim>
void launch_forward_sm80(const ForwardArguments& arguments, CUstream_st* stream);

template <Element kElement, int kHeadDim>
void launch_forward_sm90(const ForwardArguments& arguments, CUstream_st* stream);

// The two passes of a group. Any family's first pass leaves what any family's second one takes.
template <Element kElement, int kHeadDim>
void launch_key_gradients_sm80(const BackwardArguments& arguments, CUstream_st* stream);

template <Element kElement, int kHeadDim>
void launch_key_gradients_sm90(const BackwardArguments& arguments, CUstream_st* stream);

template <Element kElement, int kHeadDim>
void launch_query_gradients_sm80(const BackwardArguments& arguments, CUstream_st* stream);

template <Element kElement, int kHeadDim>
void launch_query_gradients_sm90(const BackwardArguments& arguments, CUstream_st* stream);

}  // namespace sprocket::kernels::cuda
