// Where asynchronous work is ordered. On hosts work is done when the call returns and the one
// stream is the host's own; on CUDA a view holds a cudaStream_t. There is no implicit default
// stream.
#pragma once

namespace sprocket {

// Of the work that waits for the same processors, that of a high stream is taken first.
enum class StreamPriority { kNormal, kHigh };

// Non-owning, copyable.
class StreamView {
 public:
  // The host: calls complete before they return.
  static StreamView host() { return StreamView(nullptr); }
  // `handle` is a cudaStream_t; never null.
  static StreamView cuda(void* handle) { return StreamView(handle); }

  bool is_host() const { return handle_ == nullptr; }
  void* cuda_handle() const { return handle_; }

 private:
  explicit StreamView(void* handle) : handle_(handle) {}
  void* handle_;
};

}  // namespace sprocket
