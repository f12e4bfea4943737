#include "parallel/device/device_ordinal.h"

#include "base/error.h"

namespace sprocket::parallel {

int device_ordinal(int local_rank, int local_ranks, int devices, int ranks_per_device) {
  SPROCKET_CHECK(0 <= local_rank && local_rank < local_ranks && ranks_per_device > 0,
                 "rank {} of {}, {} to a device", local_rank, local_ranks, ranks_per_device);
  if (devices == 0) {
    throw CudaError(
        "compute.device: CUDA, and this process sees no CUDA device: look at nvidia-smi and at "
        "CUDA_VISIBLE_DEVICES; legal here: CPU");
  }
  const int needed = (local_ranks + ranks_per_device - 1) / ranks_per_device;
  if (needed > devices) {
    throw ConfigError(fmt::format(
        "compute.device: CUDA with {} ranks on this host and compute.ranks_per_device: {} needs {} "
        "devices, found {}; legal: at most {} ranks on this host, or ranks_per_device: {} or more",
        local_ranks, ranks_per_device, needed, devices, devices * ranks_per_device,
        (local_ranks + devices - 1) / devices));
  }
  return local_rank / ranks_per_device;
}

}  // namespace sprocket::parallel
