// Whether a person watches standard error.
#pragma once

namespace sprocket::launcher {

// True when standard error is a terminal, or is the pipe of an mpirun whose own standard error is
// one.
bool watched_by_a_person();

}  // namespace sprocket::launcher
