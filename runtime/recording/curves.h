// Loss and throughput of a run, from its metrics.jsonl.
#pragma once

#include <string>

#include "runtime/profile/report.h"

namespace sprocket::runtime {

// At most about kMostPoints of each, evenly spread over the lines. Lines that are no metrics are
// passed over; no file, no curves.
profile::Curves read_curves(const std::string& path);

inline constexpr int kMostPoints = 2000;

}  // namespace sprocket::runtime
