// CUDA streams and events: the only place that makes them. In builds with CUDA alone.
#pragma once

#include <utility>

#include "base/stream.h"

namespace sprocket {

// Clears the runtime's last error and throws CudaError naming `call` when `code` (a cudaError_t) is
// not cudaSuccess.
void check_cuda(int code, const char* call);

// Owning, move-only. Does not wait for the work of other streams, the default one included.
class CudaStream {
 public:
  // On the current device. Throws CudaError.
  explicit CudaStream(StreamPriority priority = StreamPriority::kNormal);
  ~CudaStream();
  CudaStream(CudaStream&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  CudaStream& operator=(CudaStream&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }

  StreamView view() const { return StreamView::cuda(handle_); }
  // Gives up ownership; adopt() takes it again.
  void* release() { return std::exchange(handle_, nullptr); }
  static CudaStream adopt(void* handle) { return CudaStream(handle); }

 private:
  explicit CudaStream(void* handle) : handle_(handle) {}
  void* handle_;
};

// Whether an event also notes when it is reached.
enum class EventTiming { kOff, kOn };

// Owning, move-only; orders streams.
class CudaEvent {
 public:
  // On the current device. Throws CudaError.
  explicit CudaEvent(EventTiming timing = EventTiming::kOff);
  ~CudaEvent();
  CudaEvent(CudaEvent&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  CudaEvent& operator=(CudaEvent&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }

  // Whether all work that was on the stream before the last record is done. Throws CudaError.
  bool reached() const;

  void* handle() const { return handle_; }
  void* release() { return std::exchange(handle_, nullptr); }
  static CudaEvent adopt(void* handle) { return CudaEvent(handle); }

 private:
  explicit CudaEvent(void* handle) : handle_(handle) {}
  void* handle_;
};

}  // namespace sprocket
