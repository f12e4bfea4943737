// The harness itself, and what the front adds to operations: positions, waits, records.
#include "tests/comm/thread_ranks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "parallel/comm/recorder.h"

namespace sprocket::comm::testing {
namespace {

using ::testing::HasSubstr;

TEST(ThreadRanks, CollectsWhatEveryRankSaid) {
  try {
    run_ranks(3, [](Communicator& group) {
      if (group.rank() == 1) throw std::runtime_error("the cable is cut");
      group.barrier();
    });
    ADD_FAILURE() << "expected RanksFailed";
  } catch (const RanksFailed& failed) {
    EXPECT_EQ(failed.first(), 1);
    ASSERT_EQ(failed.messages().size(), 3u);
    EXPECT_EQ(failed.messages().at(1), "the cable is cut");
    EXPECT_THAT(failed.messages().at(0), HasSubstr("aborted by world rank 1"));
    EXPECT_THAT(failed.messages().at(2), HasSubstr("the cable is cut"));
  }
}

TEST(ThreadRanks, RecordsPositionsAndWaits) {
  std::vector<Timeline> timelines(2);
  std::vector<CommunicatorOptions> options(2);
  for (int r = 0; r < 2; ++r) options[r].timeline = &timelines[r];
  run_ranks(options, [&](Communicator& group) {
    Timeline& timeline = timelines[group.rank()];
    timeline.set_recording(true);
    timeline.position.step = 7;
    const PhaseScope phase(&timeline, Phase::kBackward);
    const LayerScope layer(&timeline, 3);
    std::vector<float> values(1000, 1);
    const Timeline::Scope compute(&timeline, Activity::kCompute, "test");
    Work work = group.all_reduce(Buffer::of(std::span<float>(values)), ReduceOp::kSum);
    work.wait_host();
    const OpRecord record = group.recorder().since(0).front();
    EXPECT_EQ(record.position.step, 7);
    EXPECT_EQ(record.position.phase, Phase::kBackward);
    EXPECT_EQ(record.position.layer, 3);
  });
  // At least one of the two had to wait for the other, inside its compute scope.
  int waits = 0;
  for (auto& timeline : timelines) {
    for (const auto& interval : timeline.take()) {
      if (interval.activity != Activity::kCommunicationWait) continue;
      EXPECT_STREQ(interval.name, "all_reduce");
      ++waits;
    }
  }
  EXPECT_GE(waits, 1);
}

TEST(ThreadRanks, RecordsOnlyTheLastOperations) {
  std::vector<CommunicatorOptions> options(2);
  for (auto& rank : options) rank.recorded_operations = 3;
  run_ranks(options, [](Communicator& group) {
    for (int i = 0; i < 8; ++i) group.barrier();
    const auto records = group.recorder().since(0);
    ASSERT_EQ(records.size(), 3u);
    EXPECT_EQ(records.front().sequence, 5);
    EXPECT_EQ(group.recorder().totals().operations, 8);
  });
}

// A Work may outlive its communicator.
TEST(ThreadRanks, WorkOutlivesItsCommunicator) {
  run_ranks(2, [](Communicator& group) {
    auto part = group.split(0, group.rank(), "short-lived");
    std::vector<float> values(10, 1);
    Work work = part->all_reduce(Buffer::of(std::span<float>(values)), ReduceOp::kSum);
    part.reset();
    work.wait_host();
    EXPECT_EQ(values[9], 2);
  });
}

}  // namespace
}  // namespace sprocket::comm::testing
