// A status of four ranks with something in every field.
#pragma once

#include "launcher/status/job_status.h"

namespace sprocket::launcher {

JobStatus example_status();

}  // namespace sprocket::launcher
