// Logging to stderr through spdlog. Lines of rank r > 0 below warning level are dropped, so that a
// job of many ranks reads as one program.
#pragma once

#include <spdlog/spdlog.h>

namespace sprocket {

enum class LogLevel { kQuiet, kNormal, kVerbose };

// Call once per process, after the rank is known. `size` 1 prints no rank prefix.
void configure_logging(LogLevel level, int rank, int size);

}  // namespace sprocket
