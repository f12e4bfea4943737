// A job's status as text for a terminal.
#pragma once

#include <cstddef>
#include <string>

#include "launcher/status/job_status.h"

namespace sprocket::launcher {

// A few lines about the job, then a table of the ranks. Lines are cut at `width` characters; 0:
// never.
std::string status_table(const JobStatus& status, size_t width);

// The job in one line.
std::string status_line(const JobStatus& status);

}  // namespace sprocket::launcher
