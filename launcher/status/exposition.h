// A job's status in the text format of Prometheus.
#pragma once

#include <string>

#include "launcher/status/job_status.h"

namespace sprocket::launcher {

inline constexpr const char* kExpositionType = "text/plain; version=0.0.4; charset=utf-8";

// Gauges, and restarts as a counter, in base units: sprocket_job_… without labels, sprocket_rank_…
// with those of rank and host. What is unknown is left out. docs/operations.md lists them.
std::string exposition(const JobStatus& status);

}  // namespace sprocket::launcher
