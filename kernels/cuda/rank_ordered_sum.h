// Sums of ranks' contributions on the device, in the order and with the bits of the host's
// reductions: from rank 0 upwards, 16-bit types in fp32 with one rounding at the end.
#pragma once

#include <cstdint>

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "base/stream.h"

namespace sprocket::kernels::cuda {

// out[i] = sources[0][i] + sources[1][i] + …, evaluated from left to right. sources: [ranks]
// pointers in device memory to [count] each; ranks >= 1. `out` may be one of the sources. All
// arrays are 16-byte aligned. T: float, __nv_bfloat16 or __half. Asynchronous; CudaError when the
// launch fails, InternalError for a misaligned `out` or no ranks.
template <class T>
void sum_in_rank_order(const T* const* sources, int ranks, int64_t count, T* out,
                       StreamView stream);

}  // namespace sprocket::kernels::cuda
