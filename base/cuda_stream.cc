#include "base/cuda_stream.h"

#include <cuda_runtime_api.h>

#include "base/error.h"

namespace sprocket {

void check_cuda(int code, const char* call) {
  if (code == cudaSuccess) return;
  cudaGetLastError();
  throw CudaError(
      fmt::format("{} failed: {}", call, cudaGetErrorString(static_cast<cudaError_t>(code))));
}

CudaStream::CudaStream() {
  cudaStream_t stream = nullptr;
  check_cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking),
             "cudaStreamCreateWithFlags");
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
