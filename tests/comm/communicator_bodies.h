// Test bodies that hold for any backend of host memory and any number of ranks: run over threads,
// over MPI, and through the Checked decorator.
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "parallel/comm/communicator.h"

namespace sprocket::comm::testing {

struct CommunicatorBody {
  std::string name;
  std::function<void(Communicator&)> run;
};

// Every body leaves the communicator usable for the next one.
const std::vector<CommunicatorBody>& communicator_bodies();

// Bodies for two ranks or more that abort the group, or one split from it, on all of them.
// `timeout` is what the group must have been made with.
struct AbortingBody {
  std::string name;
  std::chrono::milliseconds timeout;
  std::function<void(Communicator&)> run;
};
const std::vector<AbortingBody>& aborting_bodies();

}  // namespace sprocket::comm::testing
