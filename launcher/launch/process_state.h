// What the kernel says about processes of this host.
#pragma once

#include <sys/types.h>

#include <cstdint>

namespace sprocket::launcher {

enum class ProcessState : uint8_t { kRunning, kStopped, kGone };
// Gone: no such process, or one that has ended and that nobody has asked for yet.
ProcessState process_state(pid_t process);

// Processes that were killed because this process's control group had no memory left, since it was
// made; 0 where the kernel does not count them.
int64_t processes_killed_for_memory();

}  // namespace sprocket::launcher
