#include "runtime/profile/quantity.h"

#include <fmt/format.h>

namespace sprocket::profile {

std::string percent(double share) { return fmt::format("{:.1f} %", 100 * share); }

std::string ms_text(double ms) { return seconds_text(1e-3 * ms); }

std::string seconds_text(double seconds) {
  if (seconds >= 1) return fmt::format("{:.3f} s", seconds);
  if (seconds >= 1e-3) return fmt::format("{:.1f} ms", 1e3 * seconds);
  return fmt::format("{:.0f} µs", 1e6 * seconds);
}

std::string bytes_text(double bytes) {
  if (bytes >= 1e9) return fmt::format("{:.2f} GB", bytes / 1e9);
  if (bytes >= 1e6) return fmt::format("{:.2f} MB", bytes / 1e6);
  if (bytes >= 1e3) return fmt::format("{:.1f} kB", bytes / 1e3);
  return fmt::format("{:.0f} B", bytes);
}

}  // namespace sprocket::profile
