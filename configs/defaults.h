// Writes every default of a job out, so that what runs can be printed, stored and compared.
#pragma once

#include <string>

#include "configs/job.pb.h"

namespace sprocket::config {

// Sets every field that is not set: scalars to the defaults in job.proto, schedules to constants
// (attention.sparsity 0, attention.max_coverage 1, `end` = `start`). data.latent stays unset: it
// has no default. Idempotent.
void apply_defaults(Job& job);

// Text format that load_job reads back to the same job.
std::string to_text(const Job& job);

}  // namespace sprocket::config
