// PSA's rules for rows of so many scores, for hosts and devices (see kernels/level_selection.h).
// C++17.
#pragma once

#include "kernels/mass_share.h"

namespace sprocket::kernels {

enum class LevelRule { kPaper, kCover, kQuota };

inline constexpr int kMostLevels = 8;

struct LevelBounds {
  LevelRule rule = LevelRule::kCover;
  int levels = 0;
  ScaledShare thresholds[kMostLevels];  // kPaper, kCover: ascending
  int least_finest = 0;                 // kCover: blocks at level 1, if there are so many
  int positions[kMostLevels] = {};      // kQuota: sorted ones at this level or a finer one
};

}  // namespace sprocket::kernels
