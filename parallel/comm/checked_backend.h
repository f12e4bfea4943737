// A decorator for debugging: before each operation all ranks tell each other what they are about to
// do, and a rank that disagrees is named, with what each side said, instead of hanging the group or
// mixing up its data.
//
// Compared are operation, sequence number, dtype, counts, root and reduction; for exchange every
// pair's counts. Costs one small message per pair and operation; results and records stay those of
// the backend inside. For backends of host memory.
#pragma once

#include <chrono>
#include <memory>

#include "parallel/comm/backend.h"

namespace sprocket::comm {

// `patience` limits how long the host waits for the others to arrive; the group's own timeout, if
// shorter, still holds.
std::unique_ptr<Backend> make_checked_backend(std::unique_ptr<Backend> inner,
                                              std::chrono::milliseconds patience);

}  // namespace sprocket::comm
