// `sprocket plan --measure`: a cluster description of the machine that it runs on.
#pragma once

#include <string>

#include "configs/cluster.h"
#include "configs/job.pb.h"
#include "configs/validate.h"
#include "parallel/comm/communicator.h"
#include "runtime/planner/selection_sources.h"

namespace sprocket::runtime {

struct CalibrationOptions {
  int threads = 1;  // of a rank
  int devices = 0;  // ranks of a node; 0: those that say the same host name
  SelectionOptions selection;
};

// With a group: kernels, copies and links, all ranks working at the same time; collective, the same
// result on every rank. Without one (null): kernels and copies of one rank on one node, no links.
// Throws ConfigError when the ranks of the hosts differ in number or are not in order.
config::Cluster calibrate(const config::Job& job, const config::LatentShape& shape,
                          const CalibrationOptions& options, comm::Communicator* world);

}  // namespace sprocket::runtime
