// What every launch of a kernel needs; for the host side of .cu files.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <limits>

#include "base/cuda_stream.h"
#include "base/error.h"

namespace sprocket::kernels::cuda {

// The stream to launch on; the host's is an InternalError.
inline cudaStream_t stream_of(StreamView stream) {
  SPROCKET_CHECK(!stream.is_host(), "a kernel of the device on the stream of the host");
  return static_cast<cudaStream_t>(stream.cuda_handle());
}

// ceil(items / per_block) blocks of threads.
inline unsigned grid_of(int64_t items, int64_t per_block) {
  const int64_t blocks = (items + per_block - 1) / per_block;
  SPROCKET_CHECK(items >= 0 && blocks <= std::numeric_limits<int32_t>::max(),
                 "{} items in blocks of {}", items, per_block);
  return static_cast<unsigned>(blocks);
}

// Throws CudaError when the launch before it was refused.
inline void check_launch(const char* kernel) { check_cuda(cudaGetLastError(), kernel); }

// Shared memory that one block of threads may ask for on the current device, in bytes.
inline int64_t shared_memory_limit() {
  int device = 0, bytes = 0;
  check_cuda(cudaGetDevice(&device), "cudaGetDevice");
  check_cuda(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
             "cudaDeviceGetAttribute");
  return bytes;
}

// Lets `kernel` be launched on the current device with `bytes` of dynamic shared memory. A limit is
// only ever raised: ranks may be threads of one process, and the limit is the process's.
void allow_shared_memory(const void* kernel, int64_t bytes);
template <class Kernel>
void allow_shared_memory(Kernel* kernel, int64_t bytes) {
  allow_shared_memory(reinterpret_cast<const void*>(kernel), bytes);
}

}  // namespace sprocket::kernels::cuda
