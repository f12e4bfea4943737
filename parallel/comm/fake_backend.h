// One process plays one rank of a group that does not exist: nothing moves, everything is checked,
// numbered and counted as in a real run. For dry runs and plans.
//
// The results are those of peers that contribute zeros to gathers and exchanges and nothing to
// reductions: what would have been received is zeroed, own parts are copied, and an all_reduce
// leaves the own contribution. Host memory only.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "parallel/comm/communicator.h"
#include "parallel/comm/split.h"

namespace sprocket::comm {

// What `rank` of the group that is split would pass to split(colour, key, name). Peers that do not
// exist cannot be asked, so whoever fakes a group says how it is split.
using FakePeers = std::function<SplitChoice(const std::string& name, int rank)>;

// Without `peers` splitting is an error, unless size is 1.
std::unique_ptr<Communicator> make_fake_world(int rank, int size,
                                              const CommunicatorOptions& options = {},
                                              FakePeers peers = nullptr);

}  // namespace sprocket::comm
