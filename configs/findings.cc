#include "configs/findings.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/decimal.h"
#include "base/error.h"

namespace sprocket::config {

std::vector<int64_t> divisors(int64_t number) {
  std::vector<int64_t> small, large;
  for (int64_t i = 1; i * i <= number; ++i) {
    if (number % i != 0) continue;
    small.push_back(i);
    if (i * i != number) large.push_back(number / i);
  }
  small.insert(small.end(), large.rbegin(), large.rend());
  return small;
}

std::string list(const std::vector<int64_t>& numbers) {
  constexpr int kLongest = 24;
  if (numbers.empty()) return "none";
  if (numbers.size() <= kLongest) return fmt::format("{}", fmt::join(numbers, ", "));
  return fmt::format("{}, …, {}", fmt::join(numbers.begin(), numbers.begin() + kLongest - 1, ", "),
                     numbers.back());
}

bool Findings::in_range(const std::string& path, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return true;
  add({path}, fmt::format("{}; legal: {} to {}", value, low, high));
  return false;
}

bool Findings::at_least(const std::string& path, int64_t value, int64_t low) {
  if (value >= low) return true;
  add({path}, fmt::format("{}; legal: {} or more", value, low));
  return false;
}

bool Findings::number(const std::string& path, double value, bool legal, const char* rule) {
  if (!legal) add({path}, fmt::format("{}; legal: {}", value, rule));
  return legal;
}

bool Findings::fraction(const std::string& path, double value, bool legal, const char* rule) {
  if (!number(path, value, legal, rule)) return false;
  try {
    Decimal::from_double(value);
  } catch (const ConfigError& error) {
    add({path}, error.what());
    return false;
  }
  return true;
}

}  // namespace sprocket::config
