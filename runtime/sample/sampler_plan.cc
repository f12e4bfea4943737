#include "runtime/sample/sampler_plan.h"

#include <cmath>

#include "base/error.h"
#include "runtime/diffusion/ddpm_schedule.h"
#include "runtime/train/job_diffusion.h"

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

// levels: [timesteps + 1].
SamplerPlan plan_mixing(const Diffusion& diffusion, std::span<const Level> levels,
                        std::span<const double> timesteps, double eta) {
  SPROCKET_CHECK(0 <= eta && eta <= 1, "found {}", eta);
  SPROCKET_CHECK_EQ(levels.size(), timesteps.size() + 1);
  SamplerPlan plan(timesteps.size());
  for (size_t i = 0; i < plan.size(); ++i) {
    const Level& next = levels[i + 1];
    const Diffusion::Weights x0 = diffusion.x0_weights(levels[i]),
                             eps = diffusion.eps_weights(levels[i]);
    SamplerStep& step = plan[i];
    step.level = levels[i].sigma;
    step.timestep = timesteps[i];
    step.clean = {x0.x, x0.v};
    step.update.x_weight = next.alpha * x0.x + next.sigma * eta * eps.x;
    step.update.v_weight = next.alpha * x0.v + next.sigma * eta * eps.v;
    step.update.noise_weight = next.sigma * std::sqrt((1 - eta) * (1 + eta));
  }
  return plan;
}

// step_of(abar, next abar, abar of the step before) -> DdpmStep.
template <class StepOf>
SamplerPlan plan_ddpm(std::span<const double> powers, int steps, StepOf&& step_of) {
  const int count = static_cast<int>(powers.size()), stride = count / steps;
  SamplerPlan plan;
  std::optional<double> before;
  for (const int t : ddpm_timesteps(TimestepSpacing::kTrailing, count, steps)) {
    const double abar = powers[t], next = t >= stride ? powers[t - stride] : 1;
    const DdpmStep ddpm = step_of(abar, next, before);
    const Level level = Level::of_power(abar);
    SamplerStep& step = plan.emplace_back();
    step.level = level.sigma;
    step.timestep = t;
    step.clean = {level.alpha, -level.sigma};
    step.update.x_weight = ddpm.sample;
    step.update.clean = {ddpm.clean, ddpm.last_clean};
    step.update.noise_weight = ddpm.noise;
    before = abar;
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
  std::vector<Level> levels;
  for (const double level : schedule.levels) levels.push_back({1 - level, level});
  return plan_mixing(Diffusion::flow(), levels, schedule.timesteps, eta);
}

SamplerPlan plan_tdm(const Diffusion& diffusion, std::span<const double> timesteps, double eta) {
  std::vector<Level> levels;
  for (const double timestep : timesteps) levels.push_back(diffusion.level(timestep));
  levels.push_back({1, 0});
  return plan_mixing(diffusion, levels, timesteps, eta);
}

SamplerPlan plan_ddim(std::span<const double> powers, int steps) {
  return plan_ddpm(powers, steps, [](double abar, double next, std::optional<double>) {
    return ddim_step(abar, next);
  });
}

SamplerPlan plan_dpm(std::span<const double> powers, int steps) {
  return plan_ddpm(powers, steps, dpm_step);
}

SamplerPlan plan_sampler(const config::Sampling& sampling, const config::Job& job) {
  const auto schedule = [&] { return noise_schedule(sampling, job.flow().shift()); };
  switch (sampling.sampler()) {
    case config::Sampling::EULER:
      return plan_euler(schedule());
    case config::Sampling::UNIPC:
      return plan_unipc(schedule());
    case config::Sampling::TDM:
      if (sampling.timestep().empty()) return plan_tdm(schedule(), sampling.eta());
      return plan_tdm(job_diffusion(job),
                      {sampling.timestep().data(), static_cast<size_t>(sampling.timestep_size())},
                      sampling.eta());
    case config::Sampling::DDIM:
      return plan_ddim(signal_powers(job.ddpm()), sampling.steps());
    case config::Sampling::DPM:
      return plan_dpm(signal_powers(job.ddpm()), sampling.steps());
  }
  throw InternalError("sampling.sampler has no counterpart");
}

}  // namespace sprocket::runtime
