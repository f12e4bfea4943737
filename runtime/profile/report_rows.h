// The rows of a report's tables, from the sums of a window.
#pragma once

#include <string>
#include <vector>

#include "runtime/profile/event_folder.h"
#include "runtime/profile/window_sums.h"

namespace sprocket::profile {

// Fills everything of `report` that follows from the sums, but for the verdict and the timeline.
void fill_rows(const EventFolder& folder, const WindowSums& sums, Report& report);

double median(std::vector<double> values);  // 0 of none

}  // namespace sprocket::profile
