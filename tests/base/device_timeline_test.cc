// A timeline of a rank that holds a device: every length is what was enqueued, whatever the host's
// clock says.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/timeline.h"
#include "tests/base/scripted_stream.h"

namespace sprocket {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class DeviceTimeline : public ::testing::Test {
 protected:
  DeviceTimeline() {
    timeline.set_recording(true);
    timeline.measure_by(stream.moments());
  }
  // "name begin-end" of what was recorded, from the stream's beginning.
  std::vector<std::string> taken() {
    std::vector<std::string> texts;
    for (const Interval& i : timeline.take()) {
      texts.push_back(fmt::format("{} {}-{}", i.name, i.begin_ns - 1000, i.end_ns - 1000));
    }
    return texts;
  }

  testing::ScriptedStream stream;
  Timeline timeline;
};

TEST_F(DeviceTimeline, AScopeIsWhatItEnqueued) {
  {
    const Timeline::Scope outer(&timeline, Activity::kCompute, "outer");
    stream.work(10);
    {
      const Timeline::Scope wait(&timeline, Activity::kCommunicationWait, "wait");
      stream.work(5);
      {
        const Timeline::Scope copy(&timeline, Activity::kCopy, "copy");
        stream.work(1);
      }
    }
    stream.work(20);
  }
  stream.work(7);  // in no scope
  {
    const Timeline::Scope next(&timeline, Activity::kCompute, "next");
    stream.work(3);
  }
  EXPECT_THAT(taken(),
              ElementsAre("outer 0-10", "wait 10-15", "copy 15-16", "outer 16-36", "next 43-46"));
  EXPECT_THAT(taken(), IsEmpty());
}

TEST_F(DeviceTimeline, NothingIsNotedUnlessItIsRecorded) {
  timeline.set_recording(false);
  {
    const Timeline::Scope scope(&timeline, Activity::kCompute, "unrecorded");
    stream.work(10);
  }
  EXPECT_EQ(stream.noted, 0);
  EXPECT_EQ(stream.settled, 0);
  EXPECT_THAT(taken(), IsEmpty());
}

TEST_F(DeviceTimeline, WorkGoesWithTheLastInterval) {
  {
    const Timeline::Scope outer(&timeline, Activity::kCompute, "outer", [] {
      return Work{10, 20};
    });
    stream.work(10);
    const Timeline::Scope inner(&timeline, Activity::kCopy, "inner");
    stream.work(5);
  }
  const auto intervals = timeline.take();
  ASSERT_EQ(intervals.size(), 3u);
  EXPECT_EQ(intervals[0].work, Work{});
  EXPECT_FALSE(intervals[0].closes);
  EXPECT_STREQ(intervals[1].name, "inner");
  EXPECT_TRUE(intervals[1].closes);
  EXPECT_STREQ(intervals[2].name, "outer") << "of no length, but with work";
  EXPECT_EQ(intervals[2].work, (Work{10, 20}));
  EXPECT_EQ(intervals[2].begin_ns, intervals[2].end_ns);
}

// Its beginning was never noted: what came before the inner scope is not made up.
TEST_F(DeviceTimeline, RecordingMayBeTurnedOnInsideAScope) {
  timeline.set_recording(false);
  {
    const Timeline::Scope outer(&timeline, Activity::kCompute, "outer");
    stream.work(10);
    timeline.set_recording(true);
    stream.work(20);
    {
      const Timeline::Scope inner(&timeline, Activity::kCopy, "inner");
      stream.work(5);
    }
    stream.work(30);
  }
  EXPECT_THAT(taken(), ElementsAre("inner 30-35", "outer 35-65"));
}

TEST_F(DeviceTimeline, RecordingMayBeTurnedOffInsideAScope) {
  {
    const Timeline::Scope outer(&timeline, Activity::kCompute, "outer");
    stream.work(10);
    timeline.set_recording(false);
  }
  timeline.set_recording(true);
  EXPECT_THAT(taken(), IsEmpty());
  EXPECT_EQ(stream.noted, 1);
  EXPECT_EQ(stream.forgotten_before, 1) << "the beginning that no end came to";
}

TEST_F(DeviceTimeline, AScopeMayBeOpenWhenIntervalsAreTaken) {
  const auto outer =
      std::make_unique<Timeline::Scope>(&timeline, Activity::kCompute, "outer");  // moment 0
  {
    const Timeline::Scope inner(&timeline, Activity::kCopy, "inner");  // 1
    stream.work(5);
  }  // 2
  stream.work(10);
  EXPECT_THAT(taken(), ElementsAre("inner 0-5"));
  EXPECT_EQ(stream.forgotten_before, 2) << "where the outer scope goes on";
  stream.work(30);
  {
    const Timeline::Scope inner(&timeline, Activity::kCopy, "inner");
    EXPECT_THAT(taken(), ElementsAre("outer 5-45"));
    stream.work(1);
  }
  EXPECT_THAT(taken(), ElementsAre("inner 45-46"));
}

TEST_F(DeviceTimeline, TheHostsActivitiesKeepItsClock) {
  const int64_t before = monotonic_ns();
  {
    const Timeline::Scope outer(&timeline, Activity::kCompute, "outer");
    stream.work(10);
    {
      const Timeline::Scope load(&timeline, Activity::kDataWait, "load");
      while (monotonic_ns() == before) {
      }
      stream.work(1);
    }
    stream.work(20);
    {
      const Timeline::Scope save(&timeline, Activity::kCheckpoint, "save");
      const Timeline::Scope kernel(&timeline, Activity::kOther, "kernel");
      stream.work(2);
    }
  }
  const int64_t after = monotonic_ns();
  std::vector<Interval> host, device;
  for (const Interval& interval : timeline.take()) {
    (is_of_device(interval.activity) ? device : host).push_back(interval);
  }
  ASSERT_EQ(device.size(), 3u);
  EXPECT_EQ(device[0].end_ns - device[0].begin_ns, 10);
  EXPECT_EQ(device[1].begin_ns - device[0].end_ns, 1) << "enqueued while samples were loaded";
  EXPECT_EQ(device[1].end_ns - device[1].begin_ns, 20);
  EXPECT_STREQ(device[2].name, "kernel");
  ASSERT_GE(host.size(), 1u);
  EXPECT_STREQ(host[0].name, "load");
  for (const Interval& interval : host) {
    EXPECT_LE(before, interval.begin_ns);
    EXPECT_LE(interval.end_ns, after);
  }
}

TEST_F(DeviceTimeline, WhatTakesNoTimeIsLeftOut) {
  { const Timeline::Scope scope(&timeline, Activity::kCompute, "nothing"); }
  EXPECT_THAT(taken(), IsEmpty());
}

TEST_F(DeviceTimeline, TheOrderIsThatOfEnds) {
  {
    const Timeline::Scope load(&timeline, Activity::kDataWait, "load");  // ends long after 1000 ns
    const int64_t start = monotonic_ns();
    while (monotonic_ns() == start) {
    }
  }
  {
    const Timeline::Scope scope(&timeline, Activity::kCompute, "kernel");
    stream.work(10);
  }
  const auto intervals = timeline.take();
  ASSERT_EQ(intervals.size(), 2u);
  EXPECT_STREQ(intervals[0].name, "kernel");
  EXPECT_LT(intervals[0].end_ns, intervals[1].end_ns);
}

TEST_F(DeviceTimeline, AFailureIsThrownWhereIntervalsAreTaken) {
  {
    const Timeline::Scope outer(&timeline, Activity::kCompute, "outer");
    stream.work(10);
    stream.fails = true;
    const Timeline::Scope inner(&timeline, Activity::kCopy, "inner");
  }
  EXPECT_THROW(timeline.take(), CudaError);
  stream.fails = false;
  EXPECT_THAT(taken(), IsEmpty());
}

TEST_F(DeviceTimeline, ItsMomentsAreGoneWithTheDevice) {
  const int64_t before = monotonic_ns();
  {
    const Timeline::Scope outer(&timeline, Activity::kCompute, "outer");
    stream.work(10);
    {
      const Timeline::Scope lost(&timeline, Activity::kCompute, "lost");
      stream.work(10);
    }
    timeline.measure_by(nullptr);
    {
      const Timeline::Scope inner(&timeline, Activity::kCompute, "inner");
      while (monotonic_ns() == before) {
      }
    }
  }
  const auto intervals = timeline.take();
  EXPECT_EQ(stream.settled, 0);
  for (const Interval& interval : intervals) {
    EXPECT_STRNE(interval.name, "lost");
    EXPECT_GE(interval.begin_ns, before) << "of the device, which has another clock here";
  }
}

TEST_F(DeviceTimeline, RangesAreNamedAndNested) {
  stream.traced = true;
  {
    const Timeline::Scope outer(&timeline, Activity::kCompute, "outer");
    const Timeline::Range range(&timeline, [] { return "sp.outer exchange #12"; });
    const Timeline::Scope load(&timeline, Activity::kDataWait, "load");
  }
  EXPECT_THAT(stream.ranges, ElementsAre("outer", "sp.outer exchange #12", "load", ".", ".", "."));
  stream.ranges.clear();
  timeline.set_recording(false);
  { const Timeline::Scope scope(&timeline, Activity::kCompute, "unrecorded"); }
  EXPECT_THAT(stream.ranges, ElementsAre("unrecorded", "."));
}

TEST_F(DeviceTimeline, NobodyNamesRangesThatNobodySees) {
  bool named = false;
  const auto name = [&] {
    named = true;
    return "range";
  };
  { const Timeline::Range range(&timeline, name); }
  { const Timeline::Range range(nullptr, name); }
  { const Timeline::Scope scope(&timeline, Activity::kCompute, "scope"); }
  EXPECT_FALSE(named);
  EXPECT_THAT(stream.ranges, IsEmpty());
}

TEST_F(DeviceTimeline, RangesEndWithTheDeviceAndBeginAfterIt) {
  timeline.measure_by(nullptr);
  testing::ScriptedStream traced;
  traced.traced = true;
  {
    const Timeline::Scope before(&timeline, Activity::kCompute, "before");
    timeline.measure_by(traced.moments());
    {
      const Timeline::Scope inside(&timeline, Activity::kCompute, "inside");
      timeline.measure_by(nullptr);
      EXPECT_THAT(traced.ranges, ElementsAre("inside", "."));
      timeline.measure_by(traced.moments());
    }
  }
  EXPECT_THAT(traced.ranges, ElementsAre("inside", "."));
  timeline.measure_by(nullptr);
}

}  // namespace
}  // namespace sprocket
