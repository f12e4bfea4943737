// Test bodies that hold for any backend of host memory and any number of ranks: run over threads,
// over MPI, and through the Checked decorator.
#pragma once

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

// Bodies that end with the abort of `group`; the caller hands in one that it can spare.
const std::vector<CommunicatorBody>& aborting_bodies();

}  // namespace sprocket::comm::testing
