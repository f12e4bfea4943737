// What measures a rank's scopes instead of the host's clock, where a device does the work: moments
// of the device's stream, which come after the host has enqueued what leads to them.
#pragma once

#include <cstdint>

namespace sprocket {

// Used by one thread.
class MomentSource {
 public:
  static constexpr int64_t kNone = -1;

  virtual ~MomentSource() = default;

  // Notes the moment at which the stream will have done everything that has been enqueued on it.
  // Returns its number, greater than all before, and never waits. kNone when that failed: what was
  // wrong is thrown by settle().
  virtual int64_t note() noexcept = 0;

  // Waits until every noted moment has come. Throws CudaError.
  virtual void settle() = 0;
  // When a moment came, in nanoseconds of monotonic_ns(). It was noted before the last settle().
  virtual int64_t time_of(int64_t moment) const = 0;
  // Nobody will ask for the moments before `first` any more.
  virtual void forget_before(int64_t first) noexcept = 0;

  // Whether a profiler looks at the ranges, and the ranges: what is enqueued between push and pop.
  virtual bool traced() const noexcept = 0;
  virtual void push_range(const char* name) noexcept = 0;
  virtual void pop_range() noexcept = 0;
};

}  // namespace sprocket
