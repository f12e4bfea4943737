// Samplers as numbers: what each must do exactly, and how fast it converges.
#include <cmath>

#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include "base/philox.h"
#include "configs/load.h"
#include "runtime/diffusion/ddpm_schedule.h"
#include "runtime/sample/integrator.h"

namespace sprocket::runtime {
namespace {

using config::Sampling;

at::Tensor scalar(double value) { return at::full({1}, value, at::kDouble); }

// x at the last level, from x at the first one, where the network is `velocity(x, level)`.
template <class Velocity>
double integrate(SamplerPlan plan, double x, Velocity&& velocity, double noise = 0) {
  Integrator integrator(std::move(plan));
  const size_t steps = integrator.plan().size();
  at::Tensor state = scalar(x);
  for (size_t i = 0; i < steps; ++i) {
    const double here = state.item<double>();
    state = integrator.step(state, scalar(velocity(here, integrator.plan()[i].level)),
                            [&] { return scalar(noise); });
  }
  return state.item<double>();
}

std::vector<NoiseSchedule> schedules() {
  std::vector<NoiseSchedule> all;
  for (const auto kind :
       {Sampling::DIFFUSERS_EULER, Sampling::OFFICIAL_UNIPC, Sampling::DIFFUSERS_UNIPC}) {
    for (const int steps : {1, 2, 3, 8}) all.push_back(make_noise_schedule(kind, steps, 5));
  }
  all.push_back(listed_noise_schedule(std::vector<double>{1000, 750, 500, 250}));
  return all;
}

// A network that knows the clean latent: x - s v is `clean` everywhere.
TEST(SamplerPlan, ReachesTheCleanLatentOfASureNetwork) {
  const double clean = -0.75;
  const auto sure = [&](double x, double level) { return (x - clean) / level; };
  for (const NoiseSchedule& schedule : schedules()) {
    for (const SamplerPlan& plan :
         {plan_euler(schedule), plan_unipc(schedule), plan_tdm(schedule, 0.9)}) {
      // Up to 8 steps; UniPC's divided differences lose up to 2 / h^2 < 16 roundings in each.
      EXPECT_NEAR(integrate(plan, 1.5, sure, 0.3), clean, 8 * 16 * 4 * 0x1p-53)
          << schedule.timesteps.size();
    }
  }
}

// With v = eps - x0 for one x0 and eps, x at every level is (1 - s) x0 + s eps.
TEST(SamplerPlan, DeterministicSamplersFollowAStraightPath) {
  const double x0 = 0.5, eps = -1.25;
  const auto straight = [&](double, double) { return eps - x0; };
  for (const NoiseSchedule& schedule : schedules()) {
    NoiseSchedule part = schedule;  // up to the level of the last evaluation
    if (part.timesteps.size() < 2) continue;
    part.timesteps.pop_back();
    part.levels.pop_back();
    for (const SamplerPlan& plan : {plan_euler(part), plan_unipc(part), plan_tdm(part, 1)}) {
      const double from = plan.front().level, to = part.levels.back();
      EXPECT_NEAR(integrate(plan, (1 - from) * x0 + from * eps, straight), (1 - to) * x0 + to * eps,
                  8 * 16 * 4 * 0x1p-53);
    }
  }
}

TEST(SamplerPlan, TdmMixesPredictedAndFreshNoise) {
  const double x0 = 0.5, eps = -1.25, z = 2, eta = 0.9;
  const NoiseSchedule schedule = listed_noise_schedule(std::vector<double>{1000, 750, 500, 250});
  Integrator integrator(plan_tdm(schedule, eta));
  at::Tensor x = scalar(eps);  // level 1
  double noise = eps;          // in x
  for (int i = 0; i < 4; ++i) {
    const double next = schedule.levels[i + 1];
    x = integrator.step(x, scalar(noise - x0), [&] { return scalar(z); });
    noise = eta * noise + std::sqrt(1 - eta * eta) * z;
    EXPECT_NEAR(x.item<double>(), (1 - next) * x0 + next * noise, 1e-15) << i;
  }
}

TEST(SamplerPlan, TdmMixesNoiseOfVPredictionToo) {
  const double x0 = 0.5, eps = -1.25, z = 2, eta = 0.9;
  const std::vector<double> powers = ddpm_signal_powers({.zero_terminal_snr = true});
  const std::vector<double> timesteps = {999, 749, 499, 249};
  Integrator integrator(plan_tdm(Diffusion::v_prediction(powers), timesteps, eta));
  at::Tensor x = scalar(eps);  // of the last timestep, which is noise alone
  double noise = eps;
  for (int i = 0; i < 4; ++i) {
    const double power = powers[static_cast<size_t>(timesteps[i])];
    const double next = i < 3 ? powers[static_cast<size_t>(timesteps[i + 1])] : 1;
    EXPECT_EQ(integrator.plan()[i].timestep, timesteps[i]);
    x = integrator.step(x, scalar(std::sqrt(power) * noise - std::sqrt(1 - power) * x0),
                        [&] { return scalar(z); });
    noise = eta * noise + std::sqrt(1 - eta * eta) * z;
    EXPECT_NEAR(x.item<double>(), std::sqrt(next) * x0 + std::sqrt(1 - next) * noise, 1e-14) << i;
  }
}

TEST(SamplerPlan, NoiseIsAskedForOnlyWhereItIsNeeded) {
  const NoiseSchedule schedule = listed_noise_schedule(std::vector<double>{1000, 500});
  const auto asked = [&](SamplerPlan plan) {
    Integrator integrator(std::move(plan));
    int count = 0;
    at::Tensor x = scalar(1);
    for (int i = 0; i < 2; ++i) {
      x = integrator.step(x, scalar(0.5), [&] {
        ++count;
        return scalar(0);
      });
    }
    return count;
  };
  EXPECT_EQ(asked(plan_euler(schedule)), 0);
  EXPECT_EQ(asked(plan_unipc(schedule)), 0);
  EXPECT_EQ(asked(plan_tdm(schedule, 1)), 0);
  EXPECT_EQ(asked(plan_tdm(schedule, 0.9)), 1);  // not behind the last evaluation
}

// Latents that are N(0, c^2): E[x0 | x] and E[eps | x] are linear, v = x (s - (1 - s) c^2) / V with
// V = (1 - s)^2 c^2 + s^2 = Var x, and x is proportional to sqrt(V) on the flow's path.
struct GaussianFlow {
  double c = 0.4;
  double variance(double s) const { return (1 - s) * (1 - s) * c * c + s * s; }
  double velocity(double x, double s) const { return x * (s - (1 - s) * c * c) / variance(s); }
};

// Levels equally spaced in log((1 - s) / s), so that all steps shrink alike, but for one more that
// is next to nothing: the last one is of first order in every sampler.
NoiseSchedule log_spaced(int steps) {
  const double from = 0.95, to = 0.05;
  const double first = std::log((1 - from) / from), last = std::log((1 - to) / to);
  NoiseSchedule schedule;
  for (int i = 0; i <= steps; ++i) {
    schedule.levels.push_back(1 / (1 + std::exp(first + (last - first) * i / steps)));
    schedule.timesteps.push_back(1000 * schedule.levels.back());
  }
  schedule.levels.push_back(schedule.levels.back() * (1 - 1e-9));
  return schedule;
}

double order_of(SamplerPlan (*plan)(const NoiseSchedule&)) {
  const GaussianFlow flow;
  double errors[2];
  for (int i = 0; i < 2; ++i) {
    const NoiseSchedule schedule = log_spaced(i == 0 ? 80 : 160);
    const double from = schedule.levels.front(), to = schedule.levels.back();
    const double found = integrate(plan(schedule), std::sqrt(flow.variance(from)),
                                   [&](double x, double s) { return flow.velocity(x, s); });
    errors[i] = std::abs(found - std::sqrt(flow.variance(to)));
  }
  return std::log2(errors[0] / errors[1]);
}

TEST(SamplerPlan, ConvergesInItsOrder) {
  // What is left of the next order at these steps is a few per cent. A corrector is of one order
  // more than its predictor.
  EXPECT_NEAR(order_of(plan_euler), 1, 0.1);
  EXPECT_NEAR(order_of(plan_unipc), 3, 0.1);
}

TEST(SamplerPlan, TakesPureNoiseForAlmostPure) {
  const NoiseSchedule schedule = make_noise_schedule(Sampling::DIFFUSERS_EULER, 4, 5);
  ASSERT_EQ(schedule.levels[0], 1);
  const SamplerPlan plan = plan_unipc(schedule);
  EXPECT_EQ(plan[0].level, 1 - 1e-6);
  EXPECT_EQ(plan[0].timestep, 1000);
  for (const SamplerStep& step : plan) {
    EXPECT_TRUE(std::isfinite(step.update.x_weight + step.update.clean[0] + step.update.clean[1]));
  }
}

Sampling sampling_of(const std::string& text) {
  return config::parse_job("sampling { " + text + " }", "test").job.sampling();
}

config::Job flow(double shift) {
  config::Job job;
  job.mutable_flow()->set_shift(shift);
  return job;
}

TEST(SamplerPlan, IsWhatTheJobSays) {
  const auto timesteps = [](const Sampling& sampling, double shift) {
    std::vector<double> all;
    for (const SamplerStep& step : plan_sampler(sampling, flow(shift))) {
      all.push_back(step.timestep);
    }
    return all;
  };
  const Sampling listed = sampling_of("timestep: [1000, 757, 522] steps: 9 shift: 3");
  EXPECT_EQ(timesteps(listed, 8), (std::vector<double>{1000, 757, 522}));
  EXPECT_EQ(sampling_steps(listed), 3);
  EXPECT_EQ(plan_sampler(listed, flow(8))[1].update.v_weight, 0.522 - 0.757);

  const Sampling euler = sampling_of("steps: 4");
  EXPECT_EQ(euler.schedule(), Sampling::DIFFUSERS_EULER);
  EXPECT_EQ(timesteps(euler, 5), make_noise_schedule(Sampling::DIFFUSERS_EULER, 4, 5).timesteps);
  EXPECT_EQ(sampling_steps(euler), 4);

  const Sampling unipc = sampling_of("steps: 4 sampler: UNIPC shift: 3");
  EXPECT_EQ(unipc.schedule(), Sampling::DIFFUSERS_UNIPC);
  EXPECT_EQ(timesteps(unipc, 5), make_noise_schedule(Sampling::DIFFUSERS_UNIPC, 4, 3).timesteps);
  EXPECT_TRUE(plan_sampler(unipc, flow(5))[1].correction);
  EXPECT_EQ(sampling_of("sampler: UNIPC schedule: OFFICIAL_UNIPC").schedule(),
            Sampling::OFFICIAL_UNIPC);

  const Sampling tdm = sampling_of("sampler: TDM timestep: [1000, 500]");
  EXPECT_NEAR(plan_sampler(tdm, flow(5))[0].update.noise_weight, 0.5 * std::sqrt(1 - 0.81), 1e-16);
}

}  // namespace
}  // namespace sprocket::runtime
