// Videos made to be compared: kept as latents, with what they cost.
#pragma once

#include <cstdint>
#include <vector>

#include "configs/job.pb.h"
#include "runtime/sample/sample_progress.h"
#include "runtime/sample/sample_task.h"
#include "runtime/train/network.h"

namespace sprocket::runtime {

struct TimedSample {
  std::vector<float> latent;  // [C, T, H, W] of the task, normalised
  double seconds = 0;         // from noise to latent
  double density = 0;         // of the self-attention, mean over layers, ranks and evaluations
};

// By task, complete on world rank 0, empty on the others. `step`: optimizer steps done. What a
// first evaluation has to set up is done before the clock starts; replicas of the mesh share the
// tasks. Collective over the world.
std::vector<TimedSample> make_timed_samples(Network& network, const config::Sampling& sampling,
                                            const std::vector<SampleTask>& tasks, int64_t step,
                                            const SampleWatch& watch);

}  // namespace sprocket::runtime
