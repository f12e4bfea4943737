// The noise levels that a sampler visits, by the names under which they are in use.
#pragma once

#include <span>
#include <vector>

#include "configs/job.pb.h"

namespace sprocket::runtime {

struct NoiseSchedule {
  std::vector<double> levels;  // [steps + 1], falling; the last one is 0
  std::vector<double>
      timesteps;  // [steps] the model's time input at levels[0 .. steps-1], 0 to 1000
};

// With w(s) = shift_level(s, shift):
//   DIFFUSERS_EULER  w(linspace(1, w(.001), n)): the shift acts twice on the low end
//   OFFICIAL_UNIPC   w(linspace(.999, 0, n + 1)[:-1])
//   DIFFUSERS_UNIPC  w(linspace(1, .001, n + 1)[:-1]), a first level of 1 lowered by 1e-6
// The UniPC ones truncate timesteps to integers, as those samplers do. steps >= 1.
NoiseSchedule make_noise_schedule(config::Sampling::Schedule kind, int steps, double shift);

// The levels timestep / 1000, without a shift. At least one timestep, descending, in (0, 1000].
NoiseSchedule listed_noise_schedule(std::span<const double> timesteps);

// What a valid job asks for: sampling.timestep, or else the schedule of its name with
// sampling.shift, or else with `flow_shift`.
NoiseSchedule noise_schedule(const config::Sampling& sampling, double flow_shift);

// Evaluations of the model that it takes to make a video.
int sampling_steps(const config::Sampling& sampling);

}  // namespace sprocket::runtime
