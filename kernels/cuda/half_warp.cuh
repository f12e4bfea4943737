// Sums over channels in the order of the host's vectors of 16 floats (kernels/lanes.h): partial
// sums of every 16th term, then their tree.
#pragma once

#include <cuda_runtime_api.h>

namespace sprocket::kernels::cuda {

constexpr int kHalfWarp = 16;

// In the first lane of each half of a warp, all of whose lanes call it.
__device__ inline float sum_of_half_warp(float value) {
#pragma unroll
  for (int distance = kHalfWarp / 2; distance > 0; distance /= 2) {
    value += __shfl_down_sync(0xffffffffu, value, distance, kHalfWarp);
  }
  return value;
}

}  // namespace sprocket::kernels::cuda
