// One step of all ranks, small enough to be drawn.
#pragma once

#include <cstdint>
#include <span>

#include "runtime/profile/operation_matching.h"
#include "runtime/profile/report.h"

namespace sprocket::profile {

inline constexpr int kTimelineRanks = 64;
inline constexpr int64_t kTimelineSpans = 40'000;

// Of the first kTimelineRanks of the ranks; where there are too many spans, the longest of every
// rank. offsets: clock_offsets of the step.
StepTimeline step_timeline(std::span<const RankStep> ranks, std::span<const int64_t> offsets);

}  // namespace sprocket::profile
