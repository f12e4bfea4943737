// The report in at most five lines.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "runtime/profile/blame.h"
#include "runtime/profile/report.h"

namespace sprocket::profile {

inline constexpr size_t kVerdictLines = 5;

// What `report`, which is complete but for it, says. Its advice, if any, is the last line but notes.
std::vector<std::string> verdict(const Report& report, const std::optional<Blame>& blame);

}  // namespace sprocket::profile
