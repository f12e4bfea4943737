#include "runtime/sample/noise_schedule.h"

#include <cmath>

#include "base/error.h"
#include "runtime/train/flow.h"

namespace sprocket::runtime {
namespace {

// The first `take` of `count` equally spaced numbers from `first` to `last`, shifted.
std::vector<double> shifted_line(double first, double last, int count, int take, double shift) {
  std::vector<double> levels(take);
  for (int i = 0; i < take; ++i) {
    const double part = count > 1 ? static_cast<double>(i) / (count - 1) : 0;
    levels[i] = shift_level(first + (last - first) * part, shift);
  }
  return levels;
}

std::vector<double> levels_of(config::Sampling::Schedule kind, int steps, double shift) {
  switch (kind) {
    case config::Sampling::DIFFUSERS_EULER:
      return shifted_line(1, shift_level(.001, shift), steps, steps, shift);
    case config::Sampling::OFFICIAL_UNIPC:
      return shifted_line(.999, 0, steps + 1, steps, shift);
    case config::Sampling::DIFFUSERS_UNIPC: {
      std::vector<double> levels = shifted_line(1, .001, steps + 1, steps, shift);
      levels[0] -= 1e-6;
      return levels;
    }
  }
  throw InternalError("sampling.schedule has no counterpart");
}

}  // namespace

NoiseSchedule make_noise_schedule(config::Sampling::Schedule kind, int steps, double shift) {
  SPROCKET_CHECK_GE(steps, 1);
  NoiseSchedule schedule;
  schedule.levels = levels_of(kind, steps, shift);
  for (const double level : schedule.levels) {
    const double timestep = kTimesteps * level;
    schedule.timesteps.push_back(kind == config::Sampling::DIFFUSERS_EULER ? timestep
                                                                           : std::floor(timestep));
  }
  schedule.levels.push_back(0);
  return schedule;
}

NoiseSchedule listed_noise_schedule(std::span<const double> timesteps) {
  SPROCKET_CHECK(!timesteps.empty(), "a schedule without timesteps");
  NoiseSchedule schedule;
  schedule.timesteps.assign(timesteps.begin(), timesteps.end());
  for (const double timestep : timesteps) schedule.levels.push_back(timestep / kTimesteps);
  schedule.levels.push_back(0);
  return schedule;
}

NoiseSchedule noise_schedule(const config::Sampling& sampling, double flow_shift) {
  if (!sampling.timestep().empty()) {
    return listed_noise_schedule(
        {sampling.timestep().data(), static_cast<size_t>(sampling.timestep_size())});
  }
  return make_noise_schedule(sampling.schedule(), sampling.steps(),
                             sampling.shift() > 0 ? sampling.shift() : flow_shift);
}

int sampling_steps(const config::Sampling& sampling) {
  return sampling.timestep().empty() ? sampling.steps() : sampling.timestep_size();
}

}  // namespace sprocket::runtime
