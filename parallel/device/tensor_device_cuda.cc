#include <ATen/Context.h>
#include <c10/core/AutogradState.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <mutex>

#include "base/cuda_stream.h"
#include "base/error.h"
#include "base/event_moments.h"
#include "parallel/device/device_ordinal.h"
#include "parallel/device/tensor_device.h"

namespace sprocket::parallel {
namespace {

// LibTorch's operators on CUDA tensors register themselves when their library is loaded. It stays:
// operators cannot be taken back.
void load_operators() {
  static std::once_flag once;
  std::call_once(once, [] {
    if (dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL) != nullptr) return;
    const char* reason = dlerror();
    throw CudaError(fmt::format(
        "compute.device: CUDA needs the CUDA half of LibTorch, libtorch_cuda.so, and the libraries "
        "of a whole torch 2.11 installation beside it (cuBLAS, cuDNN, …): {}; legal here: CPU",
        reason ? reason : "it cannot be loaded"));
  });
}

// Process-wide, and the same for every job on a device.
void set_precision() {
  at::Context& context = at::globalContext();
  context.setAllowTF32CuBLAS(false);
  context.setAllowTF32CuDNN(false);
  context.setAllowBF16ReductionCuBLAS(/*allow_reduced_precision=*/false);
}

class Held : public TensorDevice::Hold {
 public:
  explicit Held(c10::DeviceIndex device)
      : current_(device),
        former_stream_(c10::cuda::getCurrentCUDAStream(device)),
        former_threads_(c10::AutogradState::get_tls_state().get_multithreading_enabled()) {
    c10::cuda::setCurrentCUDAStream(c10::cuda::getStreamFromExternal(
        static_cast<cudaStream_t>(stream_.view().cuda_handle()), device));
    c10::AutogradState::get_tls_state().set_multithreading_enabled(false);
  }

  ~Held() override {
    cudaStreamSynchronize(static_cast<cudaStream_t>(stream_.view().cuda_handle()));
    c10::AutogradState::get_tls_state().set_multithreading_enabled(former_threads_);
    c10::cuda::setCurrentCUDAStream(former_stream_);
  }

 private:
  const c10::cuda::CUDAGuard current_;  // first: the stream is made on it
  const c10::cuda::CUDAStream former_stream_;
  const CudaStream stream_;
  const bool former_threads_;
};

}  // namespace

int visible_devices() { return c10::cuda::device_count(); }

TensorDevice TensorDevice::cuda(int ordinal) {
  load_operators();
  return hold(ordinal);
}

TensorDevice TensorDevice::hold(int ordinal) {
  set_precision();
  TensorDevice device;
  device.device_ = at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(ordinal));
  try {
    device.hold_ = std::make_unique<Held>(device.device_.index());
  } catch (const c10::Error& error) {
    throw CudaError(
        fmt::format("compute.device: CUDA device {}: {}", ordinal, error.what_without_backtrace()));
  }
  return device;
}

StreamView current_stream(const at::Device& device) {
  if (device.is_cpu()) return StreamView::host();
  return StreamView::cuda(c10::cuda::getCurrentCUDAStream(device.index()).stream());
}

std::unique_ptr<MomentSource> moments_on(const at::Device& device) {
  if (device.is_cpu()) return nullptr;
  return std::make_unique<EventMoments>(current_stream(device));
}

}  // namespace sprocket::parallel
