// Values that change over the steps, in exact decimal arithmetic.
#pragma once

#include <cstdint>

#include "base/decimal.h"
#include "configs/job.pb.h"

namespace sprocket::config {

// start + increment * floor((step - first_step) / interval), never beyond end; start before
// first_step. `schedule` is resolved (apply_defaults) and valid; step >= 0.
Decimal schedule_value(const Schedule& schedule, int64_t step);

// True when the value is `value` at every step.
bool is_constant(const Schedule& schedule, const Decimal& value);

}  // namespace sprocket::config
