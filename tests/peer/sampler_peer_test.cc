// Samplers step by step against diffusers' schedulers (make_sampler_cases.py), in fp64.
#include <algorithm>
#include <cmath>
#include <cstring>

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "models/safetensors/safetensors.h"
#include "runtime/sample/integrator.h"

namespace sprocket::runtime {
namespace {

constexpr double kRounding = 0x1p-53;

struct Case {
  std::string sampler, schedule;
  int steps;
  double shift, eta;
  std::vector<double> levels, timesteps;
  at::Tensor x, v, z;  // [steps + 1, E], [steps, E], [steps, E]
};

at::Tensor tensor_of(const safetensors::File& file, const std::string& name) {
  const auto& info = file.at(name);
  EXPECT_EQ(info.type, safetensors::ElementType::kF64) << name;
  at::Tensor result = at::empty(info.shape, at::kDouble);
  const auto bytes = file.data(info);
  std::memcpy(result.data_ptr(), bytes.data(), bytes.size());
  return result;
}

std::vector<double> numbers(const at::Tensor& tensor) {
  const auto* values = tensor.data_ptr<double>();
  return {values, values + tensor.numel()};
}

std::vector<Case> read_cases() {
  const auto file = safetensors::File::open(SPROCKET_SAMPLER_CASES);
  std::vector<Case> cases;
  for (const auto& facts : nlohmann::json::parse(file.metadata().at("cases"))) {
    const std::string name = facts.at("name").get<std::string>() + ".";
    cases.push_back({facts.at("sampler"), facts.at("schedule"), facts.at("steps"),
                     facts.at("shift"), facts.at("eta"), numbers(tensor_of(file, name + "levels")),
                     numbers(tensor_of(file, name + "timesteps")), tensor_of(file, name + "x"),
                     tensor_of(file, name + "v"), tensor_of(file, name + "z")});
  }
  EXPECT_EQ(cases.size(), 39u);
  return cases;
}

std::string describe(const Case& c) {
  return c.sampler + " over " + c.schedule + ", " + std::to_string(c.steps) + " steps, shift " +
         std::to_string(c.shift) + ", eta " + std::to_string(c.eta);
}

SamplerPlan plan_of(const Case& c) {
  // The levels to the last bit: a logarithm of 1 - level amplifies the first one's by 10^6.
  const NoiseSchedule schedule{c.levels, c.timesteps};
  if (c.sampler == "UNIPC") return plan_unipc(schedule);
  return c.sampler == "TDM" ? plan_tdm(schedule, c.eta) : plan_euler(schedule);
}

// What roundings alone may add up to. A step is a sum of at most six products. UniPC's coefficients
// are divided differences: with h the smallest step of the logarithmic signal-to-noise ratio, whose
// values are up to L, their relative error is up to 2 / h^2 (of b_2) + 4 L / h (of the ratios of
// its differences).
double tolerance(const Case& c, double scale) {
  double of_step = 8;
  if (c.sampler == "UNIPC") {
    double h = INFINITY, largest = 0, last = 0;
    for (int i = 0; i < c.steps; ++i) {
      const double ratio = std::log((1 - c.levels[i]) / c.levels[i]);
      largest = std::max(largest, std::abs(ratio));
      if (i > 0) h = std::min(h, ratio - last);
      last = ratio;
    }
    of_step += 2 / (h * h) + 4 * largest / h;
  }
  return c.steps * kRounding * of_step * scale;
}

TEST(SamplerPeer, EveryStepEqualsDiffusers) {
  for (const Case& c : read_cases()) {
    SCOPED_TRACE(describe(c));
    const double scale = std::max(c.x.abs().max().item<double>(), c.v.abs().max().item<double>());
    const double allowed = tolerance(c, scale);
    ASSERT_LT(allowed, 1e-10);
    Integrator integrator(plan_of(c));
    at::Tensor x = c.x[0];
    for (int i = 0; i < c.steps; ++i) {
      x = integrator.step(x, c.v[i], [&] { return c.z[i]; });
      ASSERT_LE((x - c.x[i + 1]).abs().max().item<double>(), allowed) << "step " << i;
    }
    EXPECT_EQ(integrator.done(), c.steps);
  }
}

TEST(SamplerPeer, EveryScheduleEqualsDiffusers) {
  for (const Case& c : read_cases()) {
    if (c.schedule.empty()) continue;
    SCOPED_TRACE(describe(c));
    config::Sampling::Schedule kind;
    ASSERT_TRUE(config::Sampling::Schedule_Parse(c.schedule, &kind));
    const NoiseSchedule ours = make_noise_schedule(kind, c.steps, c.shift);
    ASSERT_EQ(ours.levels.size(), c.levels.size());
    for (int i = 0; i <= c.steps; ++i) {
      // Two roundings of the equally spaced numbers, whose error the shift multiplies, and four.
      EXPECT_NEAR(ours.levels[i], c.levels[i], kRounding * (2 * c.shift + 4)) << i;
    }
    for (int i = 0; i < c.steps; ++i) {
      EXPECT_NEAR(ours.timesteps[i], c.timesteps[i],
                  c.sampler == "UNIPC" ? 0 : 1000 * kRounding * (2 * c.shift + 5))
          << i;
    }
  }
}

}  // namespace
}  // namespace sprocket::runtime
