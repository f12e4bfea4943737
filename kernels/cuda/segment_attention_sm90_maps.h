// Tensor maps of the keys and values of a problem, made on the host.
#pragma once

#include <cuda.h>

#include "kernels/cuda/segment_attention_problem.h"

namespace sprocket::kernels::cuda {

// By buffer; those of buffers without data are not set. Passed to kernels by value.
struct KvTensorMaps {
  CUtensorMap k[kMaxKvBuffers], v[kMaxKvBuffers];
};

// Throws CudaError when the driver has no tensor maps or refuses one.
KvTensorMaps make_tensor_maps(const SegmentAttentionProblem& problem);

}  // namespace sprocket::kernels::cuda
