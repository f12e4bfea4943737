#include "launcher/launch/straggler_watch.h"

#include <algorithm>
#include <cmath>

#include <gtest/gtest.h>

#include "tests/launcher/launch/watched_job.h"

namespace sprocket::launcher {
namespace {

constexpr int kRanks = 4;

// Ranks that make steps together: each takes its own time, and waits for the slowest.
class StragglerWatchTest : public ::testing::Test {
 protected:
  // Each heartbeat has the last eight steps, and comes after five.
  void run(int steps, const std::vector<double>& own, double transfer = 0) {
    const double wall = *std::max_element(own.begin(), own.end()) + transfer;
    for (int i = 0; i < steps; ++i) {
      ++step_;
      for (int rank = 0; rank < kRanks; ++rank) {
        control::StepTime& time = *beats_[rank].add_step_time();
        time.set_step(step_);
        time.set_wall_us(std::llround(1e6 * wall));
        time.set_exposed_us(std::llround(1e6 * (wall - own[rank])));
        if (beats_[rank].step_time_size() > 8)
          beats_[rank].mutable_step_time()->DeleteSubrange(0, 1);
      }
      if (step_ % 5 == 0) tell();
    }
  }

  void tell() {
    for (int rank = 0; rank < kRanks; ++rank) watch_.take(rank, beats_[rank]);
  }

  StragglerWatch watch_{kRanks};
  std::vector<control::Heartbeat> beats_{kRanks};
  int64_t step_ = 0;
};

TEST_F(StragglerWatchTest, TheRankThatTheOthersWaitForIsNamedWithByHowMuch) {
  run(20, {.78, .8, 1.04, .76}, .02);
  const std::vector<StragglerChange> changes = watch_.take_changes();
  ASSERT_EQ(changes.size(), 1u);
  EXPECT_TRUE(changes[0].begins);
  const Straggler& found = changes[0].straggler;
  EXPECT_EQ(found.rank, 2);
  EXPECT_NEAR(found.ratio, 1.04 / .78, 1e-6);
  EXPECT_NEAR(found.waited, .26, 1e-6);
  EXPECT_NEAR(found.step_seconds, 1.06, 1e-6);
  run(100, {.78, .8, 1.04, .76}, .02);
  EXPECT_TRUE(watch_.take_changes().empty()) << "said once";
  EXPECT_EQ(watch_.now()->rank, 2);
}

TEST_F(StragglerWatchTest, TheSentence) {
  JobWatch watch(kRanks, {});
  watch.take(joined(2));
  EXPECT_EQ(watch.sentence(Straggler{2, 1.31, .24, 1.02}),
            "rank 2 (here, process 1002): its own part of a step takes 1.31 times the median of "
            "the others; the others waited 240.0 ms of each 1.020 s for it");
}

TEST_F(StragglerWatchTest, ItsEndIsSaidOnce) {
  run(25, {.5, .5, .5, 1});
  ASSERT_EQ(watch_.take_changes().size(), 1u);
  run(10, {.5, .5, .5, .5});
  EXPECT_TRUE(watch_.take_changes().empty()) << "half of the window is still slow";
  run(10, {.5, .5, .5, .5});
  const std::vector<StragglerChange> changes = watch_.take_changes();
  ASSERT_EQ(changes.size(), 1u);
  EXPECT_FALSE(changes[0].begins);
  EXPECT_EQ(changes[0].straggler.rank, 3);
  EXPECT_FALSE(watch_.now());
}

TEST_F(StragglerWatchTest, OneNearTheThresholdDoesNotComeAndGo) {
  run(100, {.5, .5, .5, .57});
  EXPECT_FALSE(watch_.now());
  run(30, {.5, .5, .5, .65});
  EXPECT_TRUE(watch_.now());
  run(100, {.5, .5, .5, .57});
  EXPECT_TRUE(watch_.now());
  EXPECT_EQ(watch_.take_changes().size(), 1u);
}

TEST_F(StragglerWatchTest, AnotherRankTakesItsPlace) {
  run(25, {.5, .5, .5, 1});
  run(30, {1, .5, .5, .5});
  const std::vector<StragglerChange> changes = watch_.take_changes();
  ASSERT_EQ(changes.size(), 3u);
  EXPECT_FALSE(changes[1].begins);
  EXPECT_TRUE(changes[2].begins);
  EXPECT_EQ(changes[2].straggler.rank, 0);
}

TEST_F(StragglerWatchTest, ASlowStepNowAndThenIsNobodysFault) {
  for (int i = 0; i < 200; ++i) {
    std::vector<double> own(kRanks, .5);
    own[i * 7 % kRanks] = 1;
    run(1, own);
  }
  EXPECT_TRUE(watch_.take_changes().empty());
}

TEST_F(StragglerWatchTest, WhatIsLittleBesideTheNetworkIsNoMatter) {
  run(40, {.01, .01, .02, .01}, .5);
  EXPECT_FALSE(watch_.now());
}

TEST_F(StragglerWatchTest, FastStepsAreJudgedForSomeSeconds) {
  run(200, {.005, .005, .005, .01});
  EXPECT_FALSE(watch_.now());
  run(400, {.005, .005, .005, .01});
  EXPECT_TRUE(watch_.now());
}

TEST_F(StragglerWatchTest, StepsThatSomeDidNotTellOrMeasureDoNotCount) {
  for (int64_t step = 1; step <= 400; ++step) {
    for (int rank = 0; rank < kRanks; ++rank) {
      control::Heartbeat beat;
      control::StepTime& time = *beat.add_step_time();
      time.set_step(step);
      time.set_wall_us(1'000'000);
      if (step % 2 == 0) time.set_exposed_us(rank == 1 ? 0 : 500'000);
      if (rank != 3 || step > 300) watch_.take(rank, beat);
    }
    if (step == 300) {
      EXPECT_FALSE(watch_.now());
    }
  }
  ASSERT_TRUE(watch_.now());
  EXPECT_EQ(watch_.now()->rank, 1);
}

TEST(StragglerWatch, OneRankHasNobodyToWaitForIt) {
  StragglerWatch watch(1);
  control::Heartbeat beat;
  for (int64_t step = 1; step < 100; ++step) {
    control::StepTime& time = *beat.add_step_time();
    time.set_step(step);
    time.set_wall_us(1'000'000);
    time.set_exposed_us(0);
  }
  watch.take(0, beat);
  EXPECT_FALSE(watch.now());
}

}  // namespace
}  // namespace sprocket::launcher
