// Tensor maps of a problem, made on the host.
#pragma once

#include <cuda.h>

#include "kernels/cuda/segment_attention_launch.h"
#include "kernels/cuda/segment_attention_problem.h"

namespace sprocket::kernels::cuda {

// By buffer; those of buffers without data are not set. Passed to kernels by value.
struct BufferTensorMaps {
  CUtensorMap of[kMaxKvBuffers];
};

// Throw CudaError when the driver has no tensor maps or refuses one. `what` is the tensor's name.
CUtensorMap make_tensor_map(const SegmentAttentionProblem& problem,
                            const DeviceRows<const void>& rows, const char* what);
BufferTensorMaps make_key_maps(const SegmentAttentionProblem& problem);
BufferTensorMaps make_value_maps(const SegmentAttentionProblem& problem);
// The gradients of the scores that the first pass of a backward leaves in its workspace.
CUtensorMap make_slot_map(const BackwardArguments& arguments);

}  // namespace sprocket::kernels::cuda
