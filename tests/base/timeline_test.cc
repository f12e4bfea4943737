#include "base/timeline.h"

#include <gtest/gtest.h>

#include <string>

namespace sprocket {
namespace {

// Intervals shorter than the clock's resolution are not recorded: let it tick.
void tick() {
  const int64_t start = monotonic_ns();
  while (monotonic_ns() == start) {
  }
}

TEST(TimelineTest, AnInnerScopeSuspendsTheOuterOne) {
  Timeline timeline;
  timeline.set_recording(true);
  const int64_t start = monotonic_ns();
  {
    const Timeline::Scope outer(&timeline, Activity::kCompute, "outer");
    tick();
    {
      const Timeline::Scope middle(&timeline, Activity::kCommunicationWait, "middle");
      tick();
      {
        const Timeline::Scope inner(&timeline, Activity::kCopy, "inner");
        tick();
      }
      tick();
    }
    tick();
  }
  const int64_t end = monotonic_ns();
  const auto intervals = timeline.take();
  ASSERT_EQ(intervals.size(), 5u);
  const char* names[] = {"outer", "middle", "inner", "middle", "outer"};
  const Activity activities[] = {Activity::kCompute, Activity::kCommunicationWait, Activity::kCopy,
                                 Activity::kCommunicationWait, Activity::kCompute};
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(std::string(intervals[i].name), names[i]);
    EXPECT_EQ(intervals[i].activity, activities[i]);
    EXPECT_LT(intervals[i].begin_ns, intervals[i].end_ns);
    // One ends exactly where the next begins: exclusive, and nothing is lost between them.
    if (i > 0) {
      EXPECT_EQ(intervals[i].begin_ns, intervals[i - 1].end_ns);
    }
  }
  EXPECT_GE(intervals.front().begin_ns, start);
  EXPECT_LE(intervals.back().end_ns, end);
  EXPECT_TRUE(timeline.take().empty());
}

TEST(TimelineTest, RecordsNothingUnlessAsked) {
  Timeline timeline;
  {
    const Timeline::Scope scope(&timeline, Activity::kCompute, "unrecorded");
    tick();
  }
  EXPECT_TRUE(timeline.take().empty());
}

TEST(TimelineTest, ANullTimelineIsAllowed) {
  const Timeline::Scope scope(nullptr, Activity::kCompute, "nothing");
  const PhaseScope phase(nullptr, Phase::kForward);
  const LayerScope layer(nullptr, 3);
}

TEST(TimelineTest, IntervalsCarryTheirPosition) {
  Timeline timeline;
  timeline.set_recording(true);
  timeline.position.step = 12;
  {
    const PhaseScope phase(&timeline, Phase::kBackward);
    const LayerScope layer(&timeline, 5);
    {
      const Timeline::Scope scope(&timeline, Activity::kCompute, "a");
      tick();
    }
    {
      const PhaseScope recompute(&timeline, Phase::kRecompute);
      const Timeline::Scope scope(&timeline, Activity::kCompute, "b");
      tick();
    }
    EXPECT_EQ(timeline.position.phase, Phase::kBackward);
    EXPECT_EQ(timeline.position.layer, 5);
  }
  EXPECT_EQ(timeline.position.phase, Phase::kOther);
  EXPECT_EQ(timeline.position.layer, -1);
  const auto intervals = timeline.take();
  ASSERT_EQ(intervals.size(), 2u);
  for (const Interval& interval : intervals) {
    EXPECT_EQ(interval.position.step, 12);
    EXPECT_EQ(interval.position.layer, 5);
  }
  EXPECT_EQ(intervals[0].position.phase, Phase::kBackward);
  EXPECT_EQ(intervals[1].position.phase, Phase::kRecompute);
}

TEST(TimelineTest, WhatTheFakeScoreLearnsByHasPhasesOfItsOwn) {
  Timeline timeline;
  const auto phase_in = [&](Phase phase) {
    const PhaseScope scope(&timeline, phase);
    return timeline.position.phase;
  };
  {
    const FakeScoreScope scope(&timeline);
    EXPECT_EQ(phase_in(Phase::kForward), Phase::kFakeScoreForward);
    EXPECT_EQ(phase_in(Phase::kBackward), Phase::kFakeScoreBackward);
    EXPECT_EQ(phase_in(Phase::kRecompute), Phase::kFakeScoreRecompute);
    EXPECT_EQ(phase_in(Phase::kOptimizer), Phase::kFakeScoreOptimizer);
    EXPECT_EQ(phase_in(Phase::kTeacher), Phase::kTeacher);
  }
  EXPECT_EQ(phase_in(Phase::kBackward), Phase::kBackward);
  const FakeScoreScope nothing(nullptr);
}

TEST(TimelineTest, WorkIsCountedOnceWhereTheScopeCloses) {
  Timeline timeline;
  timeline.set_recording(true);
  {
    const Timeline::Scope outer(&timeline, Activity::kCompute, "outer", [] {
      return Work{10, 20};
    });
    tick();
    {
      const Timeline::Scope inner(&timeline, Activity::kCompute, "inner", [] {
        return Work{1, 2};
      });
      tick();
    }
    tick();
    const Timeline::Scope uncounted(&timeline, Activity::kCopy, "uncounted");
    tick();
  }
  std::vector<Work> work;
  std::vector<bool> closes;
  for (const Interval& interval : timeline.take()) {
    work.push_back(interval.work);
    closes.push_back(interval.closes);
  }
  // outer, inner, outer, uncounted, outer
  EXPECT_EQ(work, (std::vector<Work>{{}, {1, 2}, {}, {}, {10, 20}}));
  EXPECT_EQ(closes, (std::vector<bool>{false, true, false, true, true}));
}

TEST(TimelineTest, WorkIsAskedForOnlyWhenItIsRecorded) {
  int asked = 0;
  const auto work = [&] {
    ++asked;
    return Work{1, 1};
  };
  Timeline timeline;
  { const Timeline::Scope scope(&timeline, Activity::kCompute, "unrecorded", work); }
  { const Timeline::Scope scope(nullptr, Activity::kCompute, "nothing", work); }
  EXPECT_EQ(asked, 0);
  timeline.set_recording(true);
  { const Timeline::Scope scope(&timeline, Activity::kCompute, "recorded", work); }
  EXPECT_EQ(asked, 1);
  const auto intervals = timeline.take();
  ASSERT_EQ(intervals.size(), 1u) << "with work it is kept however short it was";
  EXPECT_EQ(intervals[0].work, (Work{1, 1}));
}

TEST(TimelineTest, AScopeEndsWhenAnExceptionPasses) {
  Timeline timeline;
  timeline.set_recording(true);
  try {
    const Timeline::Scope scope(&timeline, Activity::kCompute, "failing");
    tick();
    throw 1;
  } catch (int) {
  }
  EXPECT_EQ(timeline.take().size(), 1u);
}

}  // namespace
}  // namespace sprocket
