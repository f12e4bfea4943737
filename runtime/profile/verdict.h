// The report in at most five lines.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "runtime/profile/blame.h"
#include "runtime/profile/report.h"

namespace sprocket::profile {

inline constexpr size_t kVerdictLines = 5;

// What `report`, which is complete but for it and the prediction, says.
std::vector<std::string> verdict(const Report& report, const std::optional<Blame>& blame);

// Gives a report that has a verdict the line of its advice, which became known later.
void add_advice_line(Report& report);

}  // namespace sprocket::profile
