#include "base/log.h"

#include <spdlog/sinks/stdout_color_sinks.h>

namespace sprocket {

void configure_logging(LogLevel level, int rank, int size) {
  auto logger = std::make_shared<spdlog::logger>(
      "sprocket", std::make_shared<spdlog::sinks::stderr_color_sink_mt>());
  spdlog::level::level_enum threshold = spdlog::level::info;
  switch (level) {
    case LogLevel::kQuiet:
      threshold = spdlog::level::warn;
      break;
    case LogLevel::kNormal:
      threshold = spdlog::level::info;
      break;
    case LogLevel::kVerbose:
      threshold = spdlog::level::debug;
      break;
  }
  if (rank > 0 && level != LogLevel::kVerbose) threshold = spdlog::level::warn;
  logger->set_level(threshold);
  logger->set_pattern(size > 1 ? fmt::format("%H:%M:%S.%e %^%l%$ [rank {}/{}] %v", rank, size)
                               : "%H:%M:%S.%e %^%l%$ %v");
  spdlog::set_default_logger(std::move(logger));
}

}  // namespace sprocket
