// ASA's rule for rows of so many scores, for hosts and devices (see kernels/mass_selection.h).
// C++17.
#pragma once

#include <cstdint>

#include "kernels/mass_share.h"

namespace sprocket::kernels {

struct MassBounds {
  ScaledShare mass;
  bool include_crossing = false;
  int64_t least = 1;
  int64_t most = 1;
};

}  // namespace sprocket::kernels
