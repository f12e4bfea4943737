#include "runtime/plan/units.h"

#include <cmath>

#include <fmt/format.h>

namespace sprocket::runtime {
namespace {

// Three significant digits.
std::string digits(double value) {
  if (value == 0) return "0";
  const int places = value < 9.995 ? 2 : value < 99.95 ? 1 : 0;
  return fmt::format("{:.{}f}", value, places);
}

}  // namespace

std::string grouped(int64_t number) {
  const std::string digits = std::to_string(number);
  std::string text;
  for (size_t i = 0; i < digits.size(); ++i) {
    const size_t left = digits.size() - i;
    if (left % 3 == 0 && i > 0 && digits[i - 1] != '-') text += ',';
    text += digits[i];
  }
  return text;
}

std::string megabytes_text(double bytes) {
  if (bytes == 0) return "0";
  if (bytes < 999.5e3) return digits(bytes / 1e3) + " kB";
  if (bytes < 999.5e6) return digits(bytes / 1e6) + " MB";
  return digits(bytes / 1e9) + " GB";
}

std::string gibibytes_text(double bytes) {
  constexpr double kMebi = 1024.0 * 1024.0;
  if (bytes < 1000 * kMebi) return digits(bytes / kMebi) + " MiB";
  return digits(bytes / (1024 * kMebi)) + " GiB";
}

std::string seconds_text(double seconds) {
  if (seconds == 0) return "0";
  if (seconds < 999.5e-6) return digits(seconds * 1e6) + " us";
  if (seconds < 0.9995) return digits(seconds * 1e3) + " ms";
  return digits(seconds) + " s";
}

}  // namespace sprocket::runtime
