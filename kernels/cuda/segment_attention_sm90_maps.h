// Tensor maps of a problem, made on the host.
#pragma once

#include <cuda.h>

#include "kernels/cuda/segment_attention_problem.h"

namespace sprocket::kernels::cuda {

// By buffer; those of buffers without data are not set. Passed to kernels by value.
struct KvTensorMaps {
  CUtensorMap k[kMaxKvBuffers], v[kMaxKvBuffers];
};

// Throw CudaError when the driver has no tensor maps or refuses one. `what` is the tensor's name.
CUtensorMap make_tensor_map(const SegmentAttentionProblem& problem,
                            const DeviceRows<const void>& rows, const char* what);
KvTensorMaps make_tensor_maps(const SegmentAttentionProblem& problem);

}  // namespace sprocket::kernels::cuda
