#include "configs/schedule.h"

#include "base/error.h"

namespace sprocket::config {

Decimal schedule_value(const Schedule& schedule, int64_t step) {
  const Decimal start = Decimal::from_double(schedule.start());
  const Decimal end = Decimal::from_double(schedule.end());
  if (start == end || step < schedule.first_step()) return start;
  SPROCKET_CHECK(schedule.interval() > 0 && schedule.increment() != 0,
                 "a schedule that changes has interval {} and increment {}", schedule.interval(),
                 schedule.increment());
  const int64_t times = (step - schedule.first_step()) / schedule.interval();
  // Far beyond the end the exact product would not fit; one increment of slack keeps this clear of
  // rounding.
  const double distance = std::abs(schedule.end() - schedule.start());
  const double travelled = static_cast<double>(times) * std::abs(schedule.increment());
  if (travelled > distance + std::abs(schedule.increment())) return end;
  const Decimal value = start + Decimal::from_double(schedule.increment()) * times;
  const bool rising = start < end;
  const bool beyond = rising ? end < value : value < end;
  return beyond ? end : value;
}

bool is_constant(const Schedule& schedule, const Decimal& value) {
  return Decimal::from_double(schedule.start()) == value &&
         Decimal::from_double(schedule.end()) == value;
}

}  // namespace sprocket::config
