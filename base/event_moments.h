// The moments of a CUDA stream, by events. In builds with CUDA alone.
#pragma once

#include <deque>
#include <exception>
#include <vector>

#include "base/cuda_clock.h"
#include "base/cuda_stream.h"
#include "base/moment_source.h"
#include "base/stream.h"

namespace sprocket {

class EventMoments : public MomentSource {
 public:
  // `stream` is of the current device and outlives the source. Throws CudaError.
  explicit EventMoments(StreamView stream);

  int64_t note() noexcept override;
  void settle() override;
  int64_t time_of(int64_t moment) const override;
  void forget_before(int64_t first) noexcept override;

  bool traced() const noexcept override;
  void push_range(const char* name) noexcept override;
  void pop_range() noexcept override;

  // How many events it has made. They are used again, once reached: of a stream that keeps up with
  // the host there are kMostPending at most, however long nobody settles.
  static constexpr size_t kMostPending = 1024;
  int64_t events() const { return events_; }

 private:
  // Of the oldest one, which has been reached.
  void settle_first();

  const StreamView stream_;
  CudaClock& clock_;
  // Moments count from the first one that is kept: times_, then pending_.
  int64_t first_ = 0;
  std::deque<int64_t> times_;
  std::deque<CudaEvent> pending_;
  std::vector<CudaEvent> spare_;
  int64_t events_ = 0;
  std::exception_ptr failure_;  // of note()
};

}  // namespace sprocket
