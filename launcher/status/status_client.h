// Asks a supervisor for a job's status.
#pragma once

#include <chrono>
#include <string>

#include "launcher/status/endpoint_file.h"
#include "launcher/status/job_status.h"

namespace sprocket::launcher {

// The text of /status.json. Throws ConfigError for a URL that is none, InputError when nobody
// answers within `patience`, or somebody who is no supervisor or wants another token.
std::string ask_status(const std::string& url, const std::string& token,
                       std::chrono::milliseconds patience);

}  // namespace sprocket::launcher
