// A job's status as JSON: what /status.json says and `sprocket status` reads.
#pragma once

#include <string>
#include <string_view>

#include "launcher/status/job_status.h"

namespace sprocket::launcher {

// Changes when the meaning of a field does.
inline constexpr int kStatusSchema = 1;

// {"schema": 1, "job": {…}, "ranks": [{…}, …]}, on one line. What is unknown is null.
std::string to_json(const JobStatus& status);

// Throws InputError, which begins with `where`, for what is no status of this schema.
JobStatus status_of_json(std::string_view text, const std::string& where);

}  // namespace sprocket::launcher
