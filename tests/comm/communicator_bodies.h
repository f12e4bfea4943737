// Test bodies that hold for any backend, any number of ranks, and memory of the host or of devices:
// run over threads, over MPI, over NCCL, and through the Checked decorator.
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "parallel/comm/communicator.h"
#include "tests/comm/test_memory.h"

namespace sprocket::comm::testing {

struct CommunicatorBody {
  std::string name;
  std::function<void(Communicator&)> run;
};

// Every body leaves the communicator usable for the next one. They refer to `memory`.
std::vector<CommunicatorBody> communicator_bodies(TestMemory& memory = host_memory());

// Bodies for two ranks or more that abort the group, or one split from it, on all of them.
// `timeout` is what the group must have been made with.
struct AbortingBody {
  std::string name;
  std::chrono::milliseconds timeout;
  std::function<void(Communicator&)> run;
};
std::vector<AbortingBody> aborting_bodies(TestMemory& memory = host_memory());

// For backends of host memory whose operations are one round each: the last rank comes late, and
// the others' recorders say so.
void the_last_peer_is_known(Communicator& group);

}  // namespace sprocket::comm::testing
