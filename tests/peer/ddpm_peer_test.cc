// The discrete diffusion's tables and sampling steps against diffusers' (make_ddpm_case.py).
#include <cstring>
#include <vector>

#include <ATen/ops/from_blob.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "models/safetensors/safetensors.h"
#include "runtime/diffusion/ddpm_schedule.h"
#include "runtime/sample/integrator.h"

namespace sprocket::runtime {
namespace {

class DdpmPeer : public ::testing::Test {
 protected:
  std::vector<double> numbers(const std::string& name) const {
    const auto& info = file_.at(name);
    const auto bytes = file_.data(info);
    std::vector<double> values(bytes.size() / sizeof(double));
    std::memcpy(values.data(), bytes.data(), bytes.size());
    return values;
  }

 private:
  safetensors::File file_ =
      safetensors::File::open(std::string(SPROCKET_PEER_CASES) + "/ddpm.safetensors");
};

DdpmSpec cogvideox_2b() {
  DdpmSpec spec;
  spec.snr_shift = 3;
  spec.zero_terminal_snr = true;
  return spec;
}

constexpr int kSteps[] = {1, 4, 7, 50};

TEST_F(DdpmPeer, SignalPowers) {
  for (const bool zero : {false, true}) {
    for (const double shift : {1., 3.}) {
      const char* name = zero ? (shift == 1 ? "cogvideox_5b" : "cogvideox_2b")
                              : (shift == 1 ? "plain" : "shifted");
      DdpmSpec spec;
      spec.snr_shift = shift;
      spec.zero_terminal_snr = zero;
      const auto ours = ddpm_signal_powers(spec);
      const auto theirs = numbers(fmt::format("{}.powers", name));
      ASSERT_EQ(ours.size(), theirs.size());
      // A product of 1,000 factors in another grouping: 1,000 roundings of 1.1e-16 at most.
      for (size_t t = 0; t < ours.size(); ++t)
        EXPECT_NEAR(ours[t], theirs[t], 1.1e-13) << name << t;
    }
  }
}

TEST_F(DdpmPeer, Timesteps) {
  const std::pair<const char*, TimestepSpacing> spacings[] = {
      {"linspace", TimestepSpacing::kLinspace},
      {"leading", TimestepSpacing::kLeading},
      {"trailing", TimestepSpacing::kTrailing}};
  for (const auto& [name, spacing] : spacings) {
    for (const int steps : kSteps) {
      const auto ours = ddpm_timesteps(spacing, 1000, steps);
      const auto theirs = numbers(fmt::format("{}.{}.timesteps", name, steps));
      EXPECT_EQ(std::vector<double>(ours.begin(), ours.end()), theirs) << name << " " << steps;
    }
  }
}

// The whole path of a sampler whose predictions and noise are given: [steps + 1, elements].
std::vector<double> path(SamplerPlan plan, const std::vector<double>& start,
                         const std::vector<double>& v, const std::vector<double>& z) {
  const auto row = [&](const std::vector<double>& values, int step) {
    std::vector<double>& all = const_cast<std::vector<double>&>(values);
    return at::from_blob(all.data() + step * std::ssize(start), {std::ssize(start)}, at::kDouble);
  };
  Integrator integrator(std::move(plan));
  std::vector<double> all = start;
  at::Tensor x = row(start, 0);
  for (int i = 0; i < std::ssize(integrator.plan()); ++i) {
    x = integrator.step(x, row(v, i), [&] { return row(z, i); });
    const auto* values = x.data_ptr<double>();
    all.insert(all.end(), values, values + x.numel());
  }
  return all;
}

// 50 steps of a few roundings each, of numbers up to 10, through powers that err by 1e-13 and of
// which the steps take square roots and logarithms near 1: the ratio (1 - abar') / (1 - abar) loses
// a factor 1 / (1 - abar_0) of 400 there.
constexpr double kPathError = 1e-9;

TEST_F(DdpmPeer, Paths) {
  for (const int steps : kSteps) {
    const auto v = numbers(fmt::format("v.{}", steps));
    const size_t elements = v.size() / steps;
    for (const bool dpm : {false, true}) {
      const char* name = dpm ? "dpm" : "ddim";
      const auto theirs = numbers(fmt::format("{}.{}.x", name, steps));
      const std::vector<double> start(theirs.begin(), theirs.begin() + static_cast<long>(elements));
      const auto powers = ddpm_signal_powers(cogvideox_2b());
      const auto ours = path(dpm ? plan_dpm(powers, steps) : plan_ddim(powers, steps), start, v,
                             dpm ? numbers(fmt::format("dpm.{}.z", steps)) : v);
      ASSERT_EQ(ours.size(), theirs.size());
      for (size_t i = 0; i < ours.size(); ++i) {
        EXPECT_NEAR(ours[i], theirs[i], kPathError) << name << " of " << steps << " at " << i;
      }
    }
  }
}

}  // namespace
}  // namespace sprocket::runtime
