// Rates of this machine's kernels for a job, through the functions that a run calls.
#pragma once

#include <functional>
#include <vector>

#include "configs/job.pb.h"
#include "kernels/segment_table.h"
#include "parallel/comm/communicator.h"
#include "parallel/token_layout.h"
#include "runtime/plan/cluster_model.h"

namespace sprocket::runtime {

// Seconds of `work`: the median of `repetitions` after one that is not counted. With a group all
// ranks begin each together, and the slowest rank's median is everybody's; collective then.
double median_seconds(comm::Communicator* group, int repetitions,
                      const std::function<void()>& work);

// The same of works that take turns: what disturbs the machine meanwhile disturbs all of them.
std::vector<double> medians_in_turns(comm::Communicator* group, int repetitions,
                                     const std::vector<std::function<void()>>& works);

// What to attend to: blocks of a layout, without a pyramid.
struct KernelSubject {
  const config::Job& job;
  const parallel::TokenLayout& layout;
  const kernels::SegmentTable& table;  // all query blocks; sample 0 is used
  int threads = 1;
  comm::Communicator* progress = nullptr;  // advanced inside the kernel, as a run does; may be null
};

// Attention over the first query blocks of a few heads, in one pass and in two; selection of the
// job's density; linear layers of its width; copies of a rank's share of K, as
// Ulysses packs them. All ranks of
// `group` (null: this process alone) work at the same time. The memory of the result is not set.
// Takes a few seconds.
DeviceModel measure_device(const KernelSubject& subject, comm::Communicator* group);

// Work for about `seconds`, to measure what hides behind it: calling it does the same every time.
std::function<void()> busy_kernel(const KernelSubject& subject, double seconds);

}  // namespace sprocket::runtime
