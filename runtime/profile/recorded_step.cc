#include "runtime/profile/recorded_step.h"

#include <algorithm>

namespace sprocket::profile {

void Spread::add(double value) { add({1, value, value, value}); }

void Spread::add(const Spread& other) {
  if (other.count == 0) return;
  min = count == 0 ? other.min : std::min(min, other.min);
  max = count == 0 ? other.max : std::max(max, other.max);
  sum += other.sum;
  count += other.count;
}

uint32_t NameTable::number_of(const std::string& name) {
  const auto number = std::find(names_.begin(), names_.end(), name) - names_.begin();
  if (number == std::ssize(names_)) names_.push_back(name);
  return static_cast<uint32_t>(number);
}

}  // namespace sprocket::profile
