// Checks of MPI: whether a process can start it, alone.
#pragma once

#include <vector>

#include "launcher/doctor/finding.h"

namespace sprocket::launcher {

std::vector<Finding> check_message_passing();

}  // namespace sprocket::launcher
