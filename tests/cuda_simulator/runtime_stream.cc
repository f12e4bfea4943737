// Streams and events: work is done when it is submitted, so that there is never anything to wait
// for.
#include <chrono>
#include <set>

#include "tests/cuda_simulator/runtime.h"

using sprocket::cuda_simulator::guarded;
using sprocket::cuda_simulator::Runtime;

struct CUstream_st {
  unsigned flags = 0;
  int priority = 0;
};

struct CUevent_st {
  bool recorded = false;
  bool timed = true;
  std::chrono::steady_clock::time_point time;
};

namespace {

std::set<cudaStream_t>& streams() {
  static auto* const result =
      new std::set<cudaStream_t>{nullptr, cudaStreamLegacy, cudaStreamPerThread};
  return *result;
}

cudaError_t on_stream(cudaStream_t stream, cudaError_t result = cudaSuccess) {
  return guarded(
      [&](Runtime&) { return streams().count(stream) ? result : cudaErrorInvalidResourceHandle; });
}

cudaError_t create(cudaStream_t* stream, unsigned flags, int priority) {
  return guarded([&](Runtime&) {
    *stream = new CUstream_st{flags, priority};
    streams().insert(*stream);
    return cudaSuccess;
  });
}

}  // namespace

extern "C" {

cudaError_t cudaStreamCreate(cudaStream_t* stream) { return create(stream, 0, 0); }
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  return create(stream, flags, 0);
}
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int priority) {
  return create(stream, flags, priority);
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  return guarded([&](Runtime&) {
    if (stream == nullptr || streams().erase(stream) == 0) return cudaErrorInvalidResourceHandle;
    delete stream;
    return cudaSuccess;
  });
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) { return on_stream(stream); }
cudaError_t cudaStreamQuery(cudaStream_t stream) { return on_stream(stream); }
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t, unsigned) {
  return on_stream(stream);
}
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  *status = cudaStreamCaptureStatusNone;
  return on_stream(stream);
}
cudaError_t cudaStreamGetDevice(cudaStream_t stream, int* device) {
  *device = 0;
  return on_stream(stream);
}
cudaError_t cudaStreamGetPriority(cudaStream_t stream, int* priority) {
  *priority = stream != nullptr ? stream->priority : 0;
  return on_stream(stream);
}
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* data) {
  const cudaError_t error = on_stream(stream);
  if (error == cudaSuccess) function(data);
  return error;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  return guarded([&](Runtime&) {
    *event = new CUevent_st{false, (flags & cudaEventDisableTiming) == 0, {}};
    return cudaSuccess;
  });
}
cudaError_t cudaEventCreate(cudaEvent_t* event) {
  return cudaEventCreateWithFlags(event, cudaEventDefault);
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}
cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned) {
  event->recorded = true;
  event->time = std::chrono::steady_clock::now();
  return on_stream(stream);
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return cudaEventRecordWithFlags(event, stream, 0);
}
cudaError_t cudaEventSynchronize(cudaEvent_t) { return on_stream(nullptr); }
cudaError_t cudaEventQuery(cudaEvent_t) { return on_stream(nullptr); }
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  return guarded([&](Runtime&) {
    if (!start->recorded || !end->recorded || !start->timed || !end->timed)
      return cudaErrorInvalidResourceHandle;
    *milliseconds = std::chrono::duration<float, std::milli>(end->time - start->time).count();
    return cudaSuccess;
  });
}

}  // extern "C"
