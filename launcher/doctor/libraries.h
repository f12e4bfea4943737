// Checks of the libraries that the process has loaded.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "launcher/doctor/finding.h"

namespace sprocket::launcher {

// Distinct files in the text of a /proc/PID/maps whose name begins with `library` ("libgomp.so").
std::vector<std::string> loaded_files(const std::string& maps, std::string_view library);
// The same of this process.
std::vector<std::string> loaded_files(std::string_view library);

// One copy is right; two fight over threads (libgomp) or sockets (NCCL). `required`: none is a
// problem.
Finding judge_single_copy(std::string_view subject, const std::vector<std::string>& files,
                          bool required);

std::vector<Finding> check_libraries();

}  // namespace sprocket::launcher
