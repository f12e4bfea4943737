// What a rank records of its steps.
#include <gtest/gtest.h>

#include <algorithm>

#include "runtime/recording/profile_window.h"
#include "runtime/recording/step_collector.h"
#include "tests/runtime/thread_ranks.h"

namespace sprocket::runtime {
namespace {

TEST(StepCollector, CountsWhatTheCommunicatorsRecorded) {
  sprocket::testing::run_ranks(2, [](std::unique_ptr<comm::Communicator> world) {
    const parallel::Mesh mesh(std::move(world), {1, 2, 1});
    StepCollector collector(mesh, 1);
    for (int step = 0; step < 3; ++step) {
      collector.begin_step();
      std::vector<float> values(10, 1);
      const PhaseScope phase(mesh.timeline(), Phase::kForward);
      mesh.tensors()
          .outer()
          .all_reduce(comm::Buffer::of(std::span(values)), comm::ReduceOp::kSum)
          .wait_host();
      {
        const Timeline::Scope scope(mesh.timeline(), Activity::kCompute, "work");
        values[0] += 1;
      }
      std::vector<parallel::AttentionSlot> slots(1);
      slots[0].statistics = {0.5, 0.25, 10, {}, {{1, 4}, {3, 4}}, {{0, 2}, {1, 2}}, {}, {}};
      collector.collect(slots);
      collector.collect(slots);
      EXPECT_EQ(collector.step_head_density(), (LayerHeadShares{{{2, 8}, {6, 8}}}));
      EXPECT_EQ(collector.step_head_coverage(), (LayerHeadShares{{{0, 4}, {2, 4}}}));
      collector.end_step();
    }
    ASSERT_EQ(collector.groups()[2].name, "sp.outer");
    int operations = 0;
    for (const auto& [group, record] : collector.operations()) operations += group == 2;
    EXPECT_EQ(operations, 1);
    EXPECT_EQ(collector.lost_records(), 0);
    ASSERT_EQ(collector.sent().size(), 1u);
    EXPECT_EQ(collector.sent()[0].rank, 1 - mesh.world().rank());
    EXPECT_GT(collector.sent()[0].bytes, 0);
    EXPECT_EQ(collector.step_layers()[0].density.mean(), 0.5);
    EXPECT_EQ(collector.step_layers()[0].coverage.count, 2);
    EXPECT_EQ(std::count_if(collector.intervals().begin(), collector.intervals().end(),
                            [](const Interval& i) { return i.activity == Activity::kCompute; }),
              1);
  });
}

TEST(StepCollector, AStepThatIsNotRecordedHasItsWallTimeAlone) {
  sprocket::testing::run_ranks(2, [](std::unique_ptr<comm::Communicator> world) {
    const parallel::Mesh mesh(std::move(world), {1, 2, 1});
    StepCollector collector(mesh, 0);
    for (const bool recorded : {true, false, true}) {
      collector.begin_step(recorded);
      {
        const Timeline::Scope scope(mesh.timeline(), Activity::kCompute, "work");
        mesh.world().barrier();
      }
      const profile::StepParts parts = collector.end_step();
      EXPECT_GT(parts.wall_ns, 0);
      EXPECT_EQ(parts.communication_ns > 0, recorded);
      EXPECT_EQ(collector.operations().empty(), !recorded);
      EXPECT_EQ(collector.intervals().empty(), !recorded);
    }
  });
}

std::string places(const WindowPlan& plan, int64_t steps) {
  std::string text;
  for (int64_t done = 0; done < steps; ++done) {
    const WindowPlace place = window_place(plan, done);
    text += !place.inside ? '.' : place.first ? 'F' : place.last ? 'L' : place.recorded ? 'r' : '-';
  }
  return text;
}

TEST(WindowPlace, FollowsThePlan) {
  EXPECT_EQ(places({.steps = 3, .warmup = 2}, 8), "..FrL...");
  EXPECT_EQ(places({.steps = 3, .warmup = 1, .interval = 4}, 10), ".FrL.FrL.F");
  EXPECT_EQ(places({.steps = 2, .warmup = 0, .interval = 2}, 4), "FLFL");
  EXPECT_EQ(places({.steps = 0, .warmup = 0}, 3), "...");
  EXPECT_EQ(places({.steps = 3, .warmup = 1, .alternate = true}, 9), ".Frr--L..");
}

// As many are recorded as asked for, and as many are not.
TEST(WindowPlace, AlternatesInPairs) {
  for (int64_t steps = 1; steps < 9; ++steps) {
    int64_t recorded = 0, other = 0;
    for (int64_t done = 0; done < 30; ++done) {
      const WindowPlace place = window_place({.steps = steps, .alternate = true}, done);
      if (place.inside) ++(place.recorded ? recorded : other);
    }
    EXPECT_EQ(recorded, steps);
    EXPECT_EQ(other, steps);
  }
}

}  // namespace
}  // namespace sprocket::runtime
