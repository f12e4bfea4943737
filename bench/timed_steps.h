// Training steps (forward, backward, AdamW) of a job on random inputs, each by itself timed.
#pragma once

#include <vector>

#include "configs/job.pb.h"
#include "parallel/mesh.h"
#include "runtime/plan/flops.h"

namespace sprocket::bench {

struct TimedSteps {
  std::vector<double> ms;        // of every step after the first
  std::vector<double> waits_ms;  // of these, what the rank waited for others
  int64_t tokens = 0, parameters = 0;
  double density = 1;        // of the selections, mean over layers
  runtime::StepFlops flops;  // of one step, of all ranks
  long rss_before_mib = 0;   // resident before the first step
};

// A video of t x h x w tokens. Collective over the mesh, whose timeline is there; a step has ended
// when its weights are there.
TimedSteps time_steps(const config::Job& job, const parallel::Mesh& mesh, int threads, int t, int h,
                      int w, int steps);

double median(std::vector<double> values);
long peak_rss_mib();

}  // namespace sprocket::bench
