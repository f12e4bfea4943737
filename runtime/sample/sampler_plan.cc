#include "runtime/sample/sampler_plan.h"

#include <cmath>

#include "base/error.h"

namespace sprocket::runtime {
namespace {

template <class SetUpdate>
SamplerPlan plan_steps(const NoiseSchedule& schedule, SetUpdate&& set_update) {
  SamplerPlan plan(schedule.timesteps.size());
  for (size_t i = 0; i < plan.size(); ++i) {
    SamplerStep& step = plan[i];
    step.level = schedule.levels[i];
    step.timestep = schedule.timesteps[i];
    step.clean.v_weight = -step.level;
    set_update(step.level, schedule.levels[i + 1], step.update);
  }
  return plan;
}

}  // namespace

SamplerPlan plan_euler(const NoiseSchedule& schedule) {
  return plan_steps(schedule, [](double level, double next, SamplerStep::Update& update) {
    update.v_weight = next - level;
  });
}

SamplerPlan plan_tdm(const NoiseSchedule& schedule, double eta) {
  SPROCKET_CHECK(0 <= eta && eta <= 1, "found {}", eta);
  return plan_steps(schedule, [eta](double level, double next, SamplerStep::Update& update) {
    update.x_weight = 1 - next + next * eta;
    update.v_weight = next * eta * (1 - level) - (1 - next) * level;
    update.noise_weight = next * std::sqrt((1 - eta) * (1 + eta));
  });
}

SamplerPlan plan_sampler(const config::Sampling& sampling, double flow_shift) {
  const NoiseSchedule schedule = noise_schedule(sampling, flow_shift);
  switch (sampling.sampler()) {
    case config::Sampling::EULER:
      return plan_euler(schedule);
    case config::Sampling::UNIPC:
      return plan_unipc(schedule);
    case config::Sampling::TDM:
      return plan_tdm(schedule, sampling.eta());
    case config::Sampling::DDIM:
    case config::Sampling::DPM:
      break;  // of a family that no job runs
  }
  throw InternalError("sampling.sampler has no counterpart");
}

}  // namespace sprocket::runtime
