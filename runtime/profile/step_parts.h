// One step of one rank divided into what it was spent on (docs/profile.md). No clock but the rank's
// own is needed.
#pragma once

#include <cstdint>
#include <span>

#include "base/timeline.h"
#include "runtime/profile/interval_set.h"

namespace sprocket::profile {

// Nanoseconds. compute, exposed, copies, data_wait and other add up to wall.
struct StepParts {
  int64_t wall_ns = 0;
  int64_t compute_ns = 0;
  int64_t exposed_ns = 0;  // communication that no compute hid
  int64_t copies_ns = 0;
  int64_t data_wait_ns = 0;
  int64_t other_ns = 0;
  int64_t communication_ns = 0;  // in flight
  int64_t overlapped_ns = 0;     // of it, hidden by compute
  void add(const StepParts& step);
  bool operator==(const StepParts&) const = default;
};

// What of a step is of an activity; all of it cut at the step's ends.
struct StepSets {
  IntervalSet compute, communication, copies, data_wait;
};

// Interval: a base::Interval or a RecordedInterval.
template <class Intervals>
StepSets step_sets(const Intervals& intervals, std::vector<Span> in_flight, Span step) {
  std::vector<Span> compute, copies, data_wait;
  for (const auto& interval : intervals) {
    const Span span{interval.begin_ns, interval.end_ns};
    if (interval.activity == Activity::kCompute) compute.push_back(span);
    if (interval.activity == Activity::kCopy) copies.push_back(span);
    if (interval.activity == Activity::kDataWait) data_wait.push_back(span);
  }
  const IntervalSet whole({step});
  return {intersect(IntervalSet(std::move(compute)), whole),
          intersect(IntervalSet(std::move(in_flight)), whole),
          intersect(IntervalSet(std::move(copies)), whole),
          intersect(IntervalSet(std::move(data_wait)), whole)};
}

StepParts step_parts(const StepSets& sets, Span step);

}  // namespace sprocket::profile
