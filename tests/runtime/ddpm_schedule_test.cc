// The discrete diffusion by its definitions; its tables and steps are held against diffusers' in
// tests/peer.
#include "runtime/diffusion/ddpm_schedule.h"

#include <cmath>
#include <utility>

#include <gtest/gtest.h>

#include "base/error.h"

namespace sprocket::runtime {
namespace {

TEST(DdpmSchedule, IsTheProductThenTheShiftThenTheZeroEnd) {
  DdpmSpec spec;
  spec.timesteps = 3;
  spec.beta_start = 0.01;
  spec.beta_end = 0.09;  // betas .01, .04, .09
  const double products[] = {0.99, 0.99 * 0.96, 0.99 * 0.96 * 0.91};
  const auto plain = ddpm_signal_powers(spec);
  for (int t = 0; t < 3; ++t) EXPECT_NEAR(plain[t], products[t], 1e-15);

  spec.snr_shift = 3;
  const auto shifted = ddpm_signal_powers(spec);
  for (int t = 0; t < 3; ++t) {  // the ratio of powers is a third
    EXPECT_NEAR(shifted[t] / (1 - shifted[t]), products[t] / (1 - products[t]) / 3, 1e-12);
  }

  spec.zero_terminal_snr = true;
  const auto ended = ddpm_signal_powers(spec);
  EXPECT_NEAR(ended[0], shifted[0], 1e-15);
  EXPECT_EQ(ended[2], 0);
  const auto root = [](double x) { return std::sqrt(x); };
  EXPECT_NEAR(root(ended[1]),
              root(shifted[0]) * (root(shifted[1]) - root(shifted[2])) /
                  (root(shifted[0]) - root(shifted[2])),
              1e-15);
}

TEST(DdpmSchedule, RefusesWhatIsNoSchedule) {
  for (const DdpmSpec& spec : {DdpmSpec{1}, DdpmSpec{10, 0, 0.1}, DdpmSpec{10, 0.2, 0.1},
                               DdpmSpec{10, 0.1, 1}, DdpmSpec{10, 0.1, 0.2, 0}}) {
    EXPECT_THROW(ddpm_signal_powers(spec), InternalError);
  }
  EXPECT_THROW(ddpm_timesteps(TimestepSpacing::kTrailing, 10, 11), InternalError);
  EXPECT_THROW(ddpm_timesteps(TimestepSpacing::kTrailing, 10, 0), InternalError);
}

TEST(DdpmTimesteps, FallToTheStartOfTheirSpacing) {
  EXPECT_EQ(ddpm_timesteps(TimestepSpacing::kTrailing, 1000, 4),
            (std::vector<int>{999, 749, 499, 249}));
  EXPECT_EQ(ddpm_timesteps(TimestepSpacing::kLeading, 1000, 4),
            (std::vector<int>{750, 500, 250, 0}));
  EXPECT_EQ(ddpm_timesteps(TimestepSpacing::kLinspace, 1000, 4),
            (std::vector<int>{999, 666, 333, 0}));
  for (auto spacing :
       {TimestepSpacing::kTrailing, TimestepSpacing::kLeading, TimestepSpacing::kLinspace}) {
    EXPECT_EQ(ddpm_timesteps(spacing, 7, 7), (std::vector<int>{6, 5, 4, 3, 2, 1, 0}));
  }
}

// A step on the path of one clean sample and one noise stays on it.
TEST(DdimStep, FollowsAStraightPath) {
  const double x0 = 0.8, eps = -1.7;
  using Pair = std::pair<double, double>;
  for (const auto& [abar, next] : {Pair{0, .3}, Pair{.1, .6}, Pair{.6, .99}, Pair{.2, 1}}) {
    const DdpmStep step = ddim_step(abar, next);
    const auto noisy = [&](double power) {
      return std::sqrt(power) * x0 + std::sqrt(1 - power) * eps;
    };
    EXPECT_NEAR(step.sample * noisy(abar) + step.clean * x0, noisy(next), 1e-14);
  }
}

// With x0 known the marginal at the next level has its mean and its variance, at every order.
TEST(DpmStep, KeepsTheMarginal) {
  const double x0 = 0.8;
  using Pair = std::pair<double, double>;
  using Last = std::optional<double>;
  for (const Last last : {Last(), Last(0), Last(.05)}) {
    for (const auto& [abar, next] : {Pair{.1, .6}, Pair{.6, .99}, Pair{.2, 1}}) {
      const DdpmStep step = dpm_step(abar, next, last);
      EXPECT_NEAR(step.sample * std::sqrt(abar) * x0 + (step.clean + step.last_clean) * x0,
                  std::sqrt(next) * x0, 1e-14);
      EXPECT_NEAR(step.sample * step.sample * (1 - abar) + step.noise * step.noise, 1 - next,
                  1e-14);
    }
  }
  const DdpmStep first = dpm_step(0, .3, std::nullopt);  // out of noise alone
  EXPECT_EQ(first.sample, 0);
  EXPECT_EQ(first.clean, std::sqrt(.3));
  EXPECT_EQ(first.noise, std::sqrt(.7));
}

}  // namespace
}  // namespace sprocket::runtime
