// The host's time of what a CUDA device reaches. In builds with CUDA alone.
#pragma once

#include <array>
#include <cstdint>
#include <mutex>

#include "base/cuda_stream.h"

namespace sprocket {

// One for each device of a process, so that whatever is measured on the device, on whichever
// stream, can be compared. Any thread may use it.
//
// It knows one event with its time on the host, and takes others from there by what CUDA says has
// elapsed between the two. The time of that one is wrong by less than the host needs to enqueue an
// event on an idle stream and to see it reached; that error is common to all times, so that their
// differences have CUDA's resolution, half a microsecond.
class CudaClock {
 public:
  // Of `device`, which is the current one. It stays as long as the process. Throws CudaError.
  static CudaClock& of_device(int device);

  CudaClock(const CudaClock&) = delete;
  CudaClock& operator=(const CudaClock&) = delete;

  // Sets *ns to when `event`, a cudaEvent_t that notes its time and has been reached, was reached:
  // nanoseconds of monotonic_ns(). Returns a cudaError_t.
  int time_of(void* event, int64_t* ns);

  // Of all times, against the host's clock; half of it in either direction.
  int64_t uncertainty_ns();

  // Looks at both clocks anew. They drift apart, and elapsed times are floats: times are good for
  // minutes. Needs the device to answer on a stream of the clock's own; when it has not within a
  // fraction of a millisecond, the clock stays as it is. Throws CudaError.
  void renew();

 private:
  struct Anchor {
    CudaEvent event{EventTiming::kOn};
    int64_t host_ns = 0;
    int64_t uncertainty_ns = 0;
  };
  CudaClock();
  // False when the device does not answer within `patience_ns`.
  bool measure(Anchor& anchor, int64_t patience_ns);

  std::mutex mutex_;
  CudaStream stream_;
  std::array<Anchor, 4> anchors_;
  size_t current_ = 0;
};

}  // namespace sprocket
