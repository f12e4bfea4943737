// The report as a person reads it in a terminal.
#pragma once

#include <string>

#include "runtime/profile/report.h"

namespace sprocket::profile {

// The verdict, then tables.
std::string report_text(const Report& report);

}  // namespace sprocket::profile
