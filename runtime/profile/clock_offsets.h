// How far the ranks' clocks are apart, from operations that end for all members at about the same
// time. For drawing alone: no metric depends on it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "runtime/profile/operation_matching.h"

namespace sprocket::profile {

// By index of the step's ranks: nanoseconds to take from a rank's times to be on the clock of the
// first one. The median over the operations that two ranks have in common, along groups where they
// have none; a rank that shares no operation begins its step when the first one does.
std::vector<int64_t> clock_offsets(std::span<const RankStep> ranks,
                                   std::span<const MatchedOperation> operations);

}  // namespace sprocket::profile
