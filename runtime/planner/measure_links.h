// Latency, bandwidth and overlap of the links between the ranks of a group.
#pragma once

#include <functional>

#include "configs/cluster.pb.h"
#include "parallel/comm/communicator.h"

namespace sprocket::runtime {

// Makes work that takes about so many seconds.
using MakeBusy = std::function<std::function<void()>(double seconds)>;

// The link of one class, with `devices` ranks on a node, ranks filling nodes in order. All ranks
// that have a peer over it exchange at the same time, in both directions, through the communicator.
//   latency    the exchange of a few bytes with one peer
//   message    what each further peer adds; with a single peer, the latency
//   bandwidth  from the times of two sizes, so without the latency
//   duplex     HALF when one direction alone is above 1.5 times as fast
//   adapter    SHARED when one rank of a node alone is above 1.5 times as fast
//   overlap    of a transfer beside kernels that take about as long
// Collective. The class must exist: devices > 1, or more ranks than devices.
config::Link measure_link(comm::Communicator& world, config::Link::Class which, int devices,
                          const MakeBusy& make_busy);

}  // namespace sprocket::runtime
