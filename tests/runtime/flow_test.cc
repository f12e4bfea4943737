// Noise levels, learning rates and sampling schedules against closed forms and published values.
#include "runtime/train/flow.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "configs/defaults.h"
#include "runtime/plan/flops.h"
#include "runtime/sample/noise_schedule.h"

namespace sprocket::runtime {
namespace {

TEST(Flow, TheShiftKeepsTheEndsAndInvertsByItsInverse) {
  EXPECT_EQ(shift_level(0, 5), 0);
  EXPECT_EQ(shift_level(1, 5), 1);
  EXPECT_DOUBLE_EQ(shift_level(0.5, 5), 5.0 / 6.0);
  EXPECT_NEAR(shift_level(shift_level(0.3, 5), 0.2), 0.3, 1e-15);
}

// If s is uniform then w(s) <= x has the probability w^-1(x); 4,000 draws stray by less than
// 4 sigma = 4 sqrt(.25 / 4000).
TEST(Flow, LevelsHaveTheShiftedDistribution) {
  config::FlowMatching flow;
  flow.set_shift(5);
  for (const auto sampling : {config::FlowMatching::UNIFORM, config::FlowMatching::LOGIT_NORMAL}) {
    flow.set_timestep_sampling(sampling);
    int below = 0;
    for (int64_t i = 0; i < 4000; ++i) {
      const double level = draw_level(flow, {1, i / 4, i});
      EXPECT_GT(level, 0);
      EXPECT_LT(level, 1);
      // The median of both distributions is 1/2 before the shift.
      below += level < 5.0 / 6.0;
    }
    EXPECT_NEAR(below / 4000.0, 0.5, 4 * std::sqrt(0.25 / 4000));
  }
}

TEST(Flow, RandomNumbersDependOnTheSampleAlone) {
  const SampleKey key{7, 3, 11};
  const auto noise = draw_noise(1000, key);
  EXPECT_EQ(noise, draw_noise(1000, key));
  EXPECT_NE(noise, draw_noise(1000, {7, 3, 12}));
  EXPECT_NE(noise, draw_noise(1000, {7, 4, 11}));
  EXPECT_NE(noise, draw_noise(1000, {8, 3, 11}));
  const auto longer = draw_noise(1001, key);
  EXPECT_TRUE(std::equal(noise.begin(), noise.end(), longer.begin()));
}

TEST(Flow, TextIsDroppedAtTheGivenRate) {
  int dropped = 0;
  for (int64_t i = 0; i < 4000; ++i) dropped += drops_text(0.1, {1, i, i});
  EXPECT_NEAR(dropped / 4000.0, 0.1, 4 * std::sqrt(0.09 / 4000));
  EXPECT_FALSE(drops_text(0, {1, 2, 3}));
  EXPECT_TRUE(drops_text(1, {1, 2, 3}));
}

TEST(LearningRate, WarmsUpAndFallsToTheFinalFraction) {
  config::Optimizer optimizer;
  optimizer.set_learning_rate(1);
  optimizer.set_warmup_steps(4);
  optimizer.set_final_fraction(0.1);
  EXPECT_DOUBLE_EQ(learning_rate(optimizer, 0, 105), 0.25);
  EXPECT_DOUBLE_EQ(learning_rate(optimizer, 3, 105), 1);
  EXPECT_DOUBLE_EQ(learning_rate(optimizer, 104, 105), 1);
  optimizer.set_decay(config::Optimizer::COSINE);
  EXPECT_DOUBLE_EQ(learning_rate(optimizer, 4, 105), 1);
  EXPECT_NEAR(learning_rate(optimizer, 54, 105), 0.55, 1e-12);
  EXPECT_NEAR(learning_rate(optimizer, 104, 105), 0.1, 1e-12);
}

void expect_near(const std::vector<double>& found, const std::vector<double>& expected,
                 double tolerance) {
  ASSERT_EQ(found.size(), expected.size());
  for (size_t i = 0; i < found.size(); ++i) EXPECT_NEAR(found[i], expected[i], tolerance) << i;
}

// What diffusers 0.42.1 prints for shift 5 and four steps (its arithmetic is fp32).
TEST(NoiseSchedule, EqualsDiffusers) {
  const auto euler = make_noise_schedule(config::Sampling::DIFFUSERS_EULER, 4, 5);
  expect_near(euler.levels, {1, 0.9097071, 0.71731746, 0.024414066, 0}, 1e-7);
  expect_near(euler.timesteps, {1000, 909.70715, 717.31744, 24.414066}, 1e-4);
  const auto unipc = make_noise_schedule(config::Sampling::DIFFUSERS_UNIPC, 4, 5);
  expect_near(unipc.levels, {0.999999, 0.9375781, 0.83361095, 0.6259361, 0}, 1e-7);
  EXPECT_EQ(unipc.timesteps, (std::vector<double>{999, 937, 833, 625}));
}

TEST(NoiseSchedule, EqualsTheOfficialFormula) {
  const auto official = make_noise_schedule(config::Sampling::OFFICIAL_UNIPC, 4, 5);
  expect_near(official.levels, {0.99979984, 0.937265449, 0.83305537, 0.624687344, 0}, 1e-8);
  EXPECT_EQ(official.timesteps, (std::vector<double>{999, 937, 833, 624}));
}

TEST(NoiseSchedule, OneStepGoesFromNoiseToTheEnd) {
  for (const auto kind : {config::Sampling::DIFFUSERS_EULER, config::Sampling::OFFICIAL_UNIPC,
                          config::Sampling::DIFFUSERS_UNIPC}) {
    const auto schedule = make_noise_schedule(kind, 1, 3);
    ASSERT_EQ(schedule.levels.size(), 2u);
    EXPECT_NEAR(schedule.levels[0], 1, 1e-3);
    EXPECT_EQ(schedule.levels[1], 0);
  }
}

// Wan2.1-1.3B at 32,760 tokens, by hand: a block's linear layers 8 d^2 + 4 d ffn + 4 d^2 per token,
// keys and values of 512 text tokens 4 d^2 each; attention 4 L^2 d and 4 L 512 d; the edges.
TEST(Flops, EqualTheSumOverTheLayers) {
  config::Job job;
  config::apply_defaults(job);
  const double d = 1536, ffn = 8960, tokens = 32760, text = 512;
  const double linear = 30 * (tokens * (12 * d * d + 4 * d * ffn) + text * 4 * d * d) +
                        4 * tokens * 64 * d + 2 * text * d * (4096 + d);
  const double self = 30 * 4 * tokens * tokens * d, cross = 30 * 4 * tokens * text * d;
  const StepFlops flops = step_flops(job, 2, 32760, 0.1);
  EXPECT_NEAR(flops.dense_equivalent / (6 * (linear + self + cross)), 1, 1e-12);
  EXPECT_NEAR(flops.executed / (6 * linear + 7 * (0.1 * self + cross)), 1, 1e-12);
}

}  // namespace
}  // namespace sprocket::runtime
