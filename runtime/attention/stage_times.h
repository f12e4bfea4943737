// Where the time of `sprocket attention` goes: stages of forward and backward, medians over runs.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/timeline.h"

namespace sprocket::runtime {

// Milliseconds by stage. "kernel" sums the passes of the attention kernel, "total" is wall time,
// and "rest" what of it no stage accounts for.
using StageMs = std::map<std::string, double>;

struct CallTimes {
  StageMs forward, backward;  // backward is empty for a forward alone
};

// One call's: `intervals` were recorded in the phases kForward and kBackward, which took these
// nanoseconds.
CallTimes call_times(const std::vector<Interval>& intervals, int64_t forward_ns,
                     int64_t backward_ns);

// Stage by stage; a stage that a call lacks counts as 0 there. At least one call.
CallTimes median_times(const std::vector<CallTimes>& calls);
CallTimes largest_times(const std::vector<CallTimes>& ranks);

// A table of the stages, indented; `forward_flops` are those of all ranks.
std::string stage_table(const CallTimes& times, double forward_flops, double backward_flops);

}  // namespace sprocket::runtime
