// The devices of builds without CUDA: there are none.
#include "base/error.h"
#include "parallel/device/device_memory.h"
#include "parallel/device/device_ordinal.h"
#include "parallel/device/tensor_device.h"

namespace sprocket::parallel {
namespace {

[[noreturn]] void refuse() {
  throw ConfigError(
      "compute.device: CUDA, and this build has no CUDA: configure with -DSPROCKET_CUDA=ON (needs "
      "the CUDA toolkit); legal in this build: CPU");
}

}  // namespace

int visible_devices() { refuse(); }
TensorDevice TensorDevice::cuda(int) { refuse(); }
TensorDevice TensorDevice::hold(int) { refuse(); }

DeviceMemory device_memory(const at::Device&) {
  throw InternalError("the memory of a device in a build without CUDA");
}

void release_unused_memory(const at::Device&) {
  throw InternalError("the memory of a device in a build without CUDA");
}

StreamView current_stream(const at::Device& device) {
  SPROCKET_CHECK(device.is_cpu(), "found a tensor on {} in a build without CUDA", device.str());
  return StreamView::host();
}

std::unique_ptr<MomentSource> moments_on(const at::Device& device) {
  SPROCKET_CHECK(device.is_cpu(), "moments of {} in a build without CUDA", device.str());
  return nullptr;
}

}  // namespace sprocket::parallel
