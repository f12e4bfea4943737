// From recorded events to the files of a profile, with predictions where there is a cluster.
#pragma once

#include <optional>
#include <string>

#include "runtime/profile/report.h"

namespace sprocket::launcher {

// Adds to `report` what the planner predicts for the cluster of `cluster_file`, and its advice. The
// job is the report's own; `profile_file` is where the report will be. Throws ConfigError and
// InputError of the cluster; what the planner cannot predict for this job becomes a note.
void add_prediction(const std::string& cluster_file, const std::string& profile_file,
                    profile::Report& report);

}  // namespace sprocket::launcher
