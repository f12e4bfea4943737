#include "runtime/profile/step_parts.h"

namespace sprocket::profile {

void StepParts::add(const StepParts& step) {
  wall_ns += step.wall_ns;
  compute_ns += step.compute_ns;
  exposed_ns += step.exposed_ns;
  copies_ns += step.copies_ns;
  data_wait_ns += step.data_wait_ns;
  other_ns += step.other_ns;
  communication_ns += step.communication_ns;
  overlapped_ns += step.overlapped_ns;
}

StepParts step_parts(const StepSets& sets, Span step) {
  StepParts parts;
  parts.wall_ns = IntervalSet({step}).length();
  parts.compute_ns = sets.compute.length();
  parts.communication_ns = sets.communication.length();
  const IntervalSet exposed = subtract(sets.communication, sets.compute);
  parts.exposed_ns = exposed.length();
  parts.overlapped_ns = parts.communication_ns - parts.exposed_ns;
  const IntervalSet copies = subtract(subtract(sets.copies, sets.compute), exposed);
  parts.copies_ns = copies.length();
  const IntervalSet data =
      subtract(subtract(subtract(sets.data_wait, sets.compute), exposed), copies);
  parts.data_wait_ns = data.length();
  parts.other_ns =
      parts.wall_ns - parts.compute_ns - parts.exposed_ns - parts.copies_ns - parts.data_wait_ns;
  return parts;
}

}  // namespace sprocket::profile
