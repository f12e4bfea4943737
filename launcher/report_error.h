// How an error that ends a command is said.
#pragma once

#include <exception>

#include "base/exit_code.h"

namespace sprocket::launcher {

// Prints the error to standard error, without stack or type names, and returns its exit code.
ExitCode report_error(const std::exception& error);

}  // namespace sprocket::launcher
