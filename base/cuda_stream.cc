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

CudaEvent::CudaEvent() {
  cudaEvent_t event = nullptr;
  check_cuda(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cudaEventCreateWithFlags");
  handle_ = event;
}

CudaEvent::~CudaEvent() {
  if (handle_) cudaEventDestroy(static_cast<cudaEvent_t>(handle_));
}

}  // namespace sprocket
