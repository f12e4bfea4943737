// Checks of the libraries that the process has loaded.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "launcher/doctor/finding.h"

namespace sprocket::launcher {

// The text of this process's maps.
std::string own_maps();

// Distinct files in the text of a /proc/PID/maps whose name begins with `library` ("libgomp.so").
std::vector<std::string> loaded_files(const std::string& maps, std::string_view library);
// The same of this process, for any of several names.
std::vector<std::string> loaded_files(const std::vector<std::string_view>& libraries);

// One copy is right; two fight over threads (OpenMP), sockets (NCCL) or registries (protobuf).
// `required`: none is a problem.
Finding judge_single_copy(std::string_view subject, const std::vector<std::string>& files,
                          bool required);

std::vector<Finding> check_libraries();

}  // namespace sprocket::launcher
