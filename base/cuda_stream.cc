#include "base/cuda_stream.h"

#include <cuda_runtime_api.h>

#include "base/error.h"

namespace sprocket {

void check_cuda(int code, const char* call) {
  if (code == cudaSuccess) return;
  cudaGetLastError();
  throw CudaError(
      fmt::format("{} failed: {}", call, cudaGetErrorString(static_cast<cudaError_t>(code))), code);
}

CudaStream::CudaStream(StreamPriority priority) {
  cudaStream_t stream = nullptr;
  switch (priority) {
    case StreamPriority::kNormal:
      check_cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking),
                 "cudaStreamCreateWithFlags");
      break;
    case StreamPriority::kHigh:
      int least = 0, greatest = 0;
      check_cuda(cudaDeviceGetStreamPriorityRange(&least, &greatest),
                 "cudaDeviceGetStreamPriorityRange");
      check_cuda(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, greatest),
                 "cudaStreamCreateWithPriority");
      break;
  }
  handle_ = stream;
}

CudaStream::~CudaStream() {
  if (handle_) cudaStreamDestroy(static_cast<cudaStream_t>(handle_));
}

CudaEvent::CudaEvent(EventTiming timing) {
  cudaEvent_t event = nullptr;
  const unsigned flags = timing == EventTiming::kOn ? cudaEventDefault : cudaEventDisableTiming;
  check_cuda(cudaEventCreateWithFlags(&event, flags), "cudaEventCreateWithFlags");
  handle_ = event;
}

bool CudaEvent::reached() const {
  const cudaError_t code = cudaEventQuery(static_cast<cudaEvent_t>(handle_));
  if (code == cudaErrorNotReady) {
    cudaGetLastError();  // else it is found after somebody's next launch
    return false;
  }
  check_cuda(code, "cudaEventQuery");
  return true;
}

CudaEvent::~CudaEvent() {
  if (handle_) cudaEventDestroy(static_cast<cudaEvent_t>(handle_));
}

}  // namespace sprocket
