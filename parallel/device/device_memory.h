// What a rank's tensors take of its CUDA device.
#pragma once

#include <cstdint>

#include <c10/core/Device.h>

namespace sprocket::parallel {

// Bytes. Peaks are of this process since its start, by LibTorch's allocator, which also has what
// the project's kernels work in; NCCL's buffers and the context of CUDA are not in them.
struct DeviceMemory {
  int64_t peak_allocated = 0;  // held by tensors
  int64_t peak_reserved = 0;   // taken from the device: tensors', and kept for the next ones
  int64_t available = 0;       // now: free on the device, and kept by this process
};

// `device` is a CUDA device that this rank holds. Throws CudaError.
DeviceMemory device_memory(const at::Device& device);

// Gives what the allocator keeps for the next tensors back to the device, and starts the peaks
// anew.
void release_unused_memory(const at::Device& device);

}  // namespace sprocket::parallel
