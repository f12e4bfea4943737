#include "kernels/cuda/launch.h"

#include <map>
#include <mutex>
#include <utility>

namespace sprocket::kernels::cuda {

void allow_shared_memory(const void* kernel, int64_t bytes) {
  static std::mutex mutex;
  static std::map<std::pair<int, const void*>, int64_t> limits;
  int device = 0;
  check_cuda(cudaGetDevice(&device), "cudaGetDevice");
  const std::lock_guard lock(mutex);
  int64_t& limit = limits[{device, kernel}];
  if (bytes <= limit) return;
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  static_cast<int>(bytes)),
             "cudaFuncSetAttribute");
  limit = bytes;
}

}  // namespace sprocket::kernels::cuda
