#include "parallel/device/device_memory.h"

#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAGuard.h>
#include <cuda_runtime_api.h>

#include "base/cuda_stream.h"

namespace sprocket::parallel {

DeviceMemory device_memory(const at::Device& device) {
  const c10::cuda::CUDAGuard current(device.index());
  size_t free = 0, total = 0;
  check_cuda(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
  DeviceMemory memory;
  memory.available = static_cast<int64_t>(free);
  if (!c10::cuda::CUDACachingAllocator::get()->initialized()) return memory;  // gave nothing yet
  using c10::CachingAllocator::StatType;
  const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(device.index());
  const auto all = static_cast<size_t>(StatType::AGGREGATE);
  memory.peak_allocated = stats.allocated_bytes[all].peak;
  memory.peak_reserved = stats.reserved_bytes[all].peak;
  memory.available += stats.reserved_bytes[all].current - stats.allocated_bytes[all].current;
  return memory;
}

void release_unused_memory(const at::Device& device) {
  if (!c10::cuda::CUDACachingAllocator::get()->initialized()) return;
  c10::cuda::CUDACachingAllocator::emptyCache();
  c10::cuda::CUDACachingAllocator::resetPeakStats(device.index());
}

}  // namespace sprocket::parallel
