// Runs one body as N ranks that are threads of the test's process.
#pragma once

#include <functional>
#include <memory>

#include "parallel/comm/backend.h"
#include "parallel/comm/communicator.h"

namespace sprocket::testing {

// `body` gets its world, whose Timeline lives as long as the call. When a rank throws, the others'
// waits end after a few seconds at most. Rethrows the error of the lowest rank that threw something
// else than a CommError, or else the lowest CommError.
void run_ranks(int ranks,
               const std::function<void(std::unique_ptr<comm::Communicator> world)>& body);

// The same on backends that `decorate` puts around those of the ranks.
using Decorate = std::function<std::unique_ptr<comm::Backend>(std::unique_ptr<comm::Backend>)>;
void run_ranks(int ranks, const Decorate& decorate,
               const std::function<void(std::unique_ptr<comm::Communicator> world)>& body);

}  // namespace sprocket::testing
