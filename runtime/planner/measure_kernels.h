// Rates of this machine's kernels for a job, through the functions that a run calls.
#pragma once

#include <functional>

#include "configs/job.pb.h"
#include "parallel/comm/communicator.h"
#include "parallel/token_layout.h"
#include "runtime/plan/cluster_model.h"

namespace sprocket::runtime {

// Seconds of `work`: the median of `repetitions` after one that is not counted. With a group all
// ranks begin each together, and the slowest rank's median is everybody's; collective then.
double median_seconds(comm::Communicator* group, int repetitions,
                      const std::function<void()>& work);

// Attention and selection for the job's head dim, blocks and density at its last step, linear
// layers of its width, copies of the size of a rank's share of K. All ranks of `group` (null: this
// process alone) work at the same time. links and memory of the result are not set. Takes a few
// seconds.
DeviceModel measure_device(const config::Job& job, const parallel::TokenLayout& layout, int threads,
                           comm::Communicator* group);

// Work for about `seconds`, to measure what hides behind it: calling it does the same every time.
std::function<void()> busy_kernel(const config::Job& job, const parallel::TokenLayout& layout,
                                  int threads, double seconds);

}  // namespace sprocket::runtime
