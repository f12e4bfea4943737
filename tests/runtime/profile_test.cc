// The arithmetic of the report, on numbers small enough to check by hand.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "runtime/profile/interval_set.h"
#include "runtime/profile/report.h"
#include "runtime/profile/step_collector.h"
#include "tests/runtime/thread_ranks.h"

namespace sprocket::runtime {
namespace {

using Spans = std::vector<Span>;

TEST(IntervalSet, JoinsWhatOverlapsOrTouches) {
  EXPECT_EQ(IntervalSet({{5, 7}, {0, 2}, {2, 3}, {6, 9}, {4, 4}, {8, 6}}).spans(),
            (Spans{{0, 3}, {5, 9}}));
  EXPECT_EQ(IntervalSet({{0, 10}, {2, 3}}).length(), 10);
  EXPECT_EQ(IntervalSet().length(), 0);
}

TEST(IntervalSet, IntersectsAndSubtracts) {
  const IntervalSet a({{0, 10}, {20, 30}});
  const IntervalSet b({{5, 22}, {25, 26}, {40, 50}});
  EXPECT_EQ(intersect(a, b).spans(), (Spans{{5, 10}, {20, 22}, {25, 26}}));
  EXPECT_EQ(subtract(a, b).spans(), (Spans{{0, 5}, {22, 25}, {26, 30}}));
  EXPECT_EQ(subtract(b, a).spans(), (Spans{{10, 20}, {40, 50}}));
  EXPECT_EQ(subtract(a, a).length(), 0);
  EXPECT_EQ(subtract(a, IntervalSet()), a);
  EXPECT_EQ(intersect(IntervalSet(), a).length(), 0);
}

TEST(IntervalSet, ABruteForceOverPointsAgrees) {
  for (unsigned seed = 1; seed < 200; ++seed) {
    Spans spans[2];
    bool inside[2][40] = {};
    unsigned word = seed;
    for (int which = 0; which < 2; ++which) {
      for (int i = 0; i < 5; ++i) {
        word = word * 1664525u + 1013904223u;
        const int64_t begin = (word >> 8) % 40,
                      end = std::min<int64_t>(40, begin + (word >> 20) % 9);
        spans[which].push_back({begin, end});
        for (int64_t p = begin; p < end; ++p) inside[which][p] = true;
      }
    }
    int64_t both = 0, first_only = 0;
    for (int p = 0; p < 40; ++p) {
      both += inside[0][p] && inside[1][p];
      first_only += inside[0][p] && !inside[1][p];
    }
    const IntervalSet a(spans[0]), b(spans[1]);
    EXPECT_EQ(intersect(a, b).length(), both) << seed;
    EXPECT_EQ(subtract(a, b).length(), first_only) << seed;
  }
}

// Step [0, 100): compute [10, 40) and [60, 80), operations [30, 50) and [70, 75) and [90, 120).
TEST(StepTimes, ExposedIsCommunicationThatNoComputeHides) {
  const std::vector<Interval> intervals = {{Activity::kCompute, "a", {}, 10, 40},
                                           {Activity::kCommunicationWait, "w", {}, 40, 50},
                                           {Activity::kCompute, "a", {}, 60, 80},
                                           {Activity::kDataWait, "d", {}, 0, 7}};
  const Spans in_flight = {{30, 50}, {70, 75}, {90, 120}};
  const StepTimes times = step_times(intervals, in_flight, {0, 100});
  EXPECT_EQ(times.wall_ns, 100);
  EXPECT_EQ(times.compute_ns, 50);
  EXPECT_EQ(times.communication_ns, 20 + 5 + 10);
  EXPECT_EQ(times.overlapped_ns, 10 + 5);
  EXPECT_EQ(times.exposed_ns, 10 + 10);
  EXPECT_EQ(times.data_wait_ns, 7);
}

RankProfile profile_of(int rank) {
  RankProfile p;
  p.steps = 2;
  p.wall_ns = 200'000'000;
  p.compute_ns = rank == 0 ? 100'000'000 : 140'000'000;
  p.communication_ns = 50'000'000;
  p.exposed_ns = 20'000'000;
  p.overlapped_ns = 30'000'000;
  p.tokens = 1000;
  p.memory = {100 + rank, 90, 20, 21, 42};
  p.compute_by_name_ns["attention.local"] = p.compute_ns;
  p.groups = {{"sp.outer", 0, 2}};
  const OpKey key{"sp.outer", comm::OpKind::kExchange, Phase::kForward};
  p.operations[key] = {3, 6000, 3, 0};
  // Of three operations two are known to both ranks; their durations are 10 and 4, 5 and 8 ms.
  const int64_t durations[2][2] = {{10'000'000, 5'000'000}, {4'000'000, 8'000'000}};
  for (int64_t i = 0; i < 2; ++i) {
    p.timings.push_back({0, static_cast<uint8_t>(key.op), static_cast<uint8_t>(key.phase), 7 + i,
                         durations[rank][i]});
  }
  if (rank == 0) p.timings.push_back({0, 5, 1, 9, 1'000'000});
  p.layers.resize(1);
  p.layers[0].density.add(rank == 0 ? 0.25 : 0.75);
  p.layers[0].coverage.add(0.5);
  return p;
}

TEST(Report, PutsRanksTogether) {
  const Report r = make_report({1, 2, 1}, {profile_of(0), profile_of(1)});
  EXPECT_DOUBLE_EQ(r.step_seconds, 0.1);
  EXPECT_DOUBLE_EQ(r.tokens_per_second, 10000);
  EXPECT_DOUBLE_EQ(r.compute_share, 0.6);
  EXPECT_DOUBLE_EQ(r.exposed_share, 0.1);
  EXPECT_DOUBLE_EQ(r.overlap, 0.6);
  EXPECT_EQ(r.slowest_rank, 1);
  EXPECT_NEAR(r.imbalance, 140.0 / 120.0, 1e-12);
  EXPECT_EQ(r.memory.peak, 101);
  EXPECT_EQ(r.memory.rest(), 101 - 83);
  ASSERT_EQ(r.operations.size(), 1u);
  const OperationRow& op = r.operations[0];
  EXPECT_DOUBLE_EQ(op.operations, 1.5);
  EXPECT_DOUBLE_EQ(op.bytes_sent, 3000);
  // Transfer min(10, 4) = 4 and min(5, 8) = 5 ms; waits 6 and 0, 0 and 3; four of six matched.
  EXPECT_DOUBLE_EQ(op.transfer_ms, 4.5 * 1.5);
  EXPECT_DOUBLE_EQ(op.wait_ms, 2.25 * 1.5);
  EXPECT_DOUBLE_EQ(op.matched, 4.0 / 6.0);
  EXPECT_DOUBLE_EQ(r.ranks[0].wait_ms, 3);
  EXPECT_DOUBLE_EQ(r.ranks[1].wait_ms, 1.5);
  EXPECT_DOUBLE_EQ(r.layers[0].density.mean(), 0.5);
  EXPECT_DOUBLE_EQ(r.layers[0].density.max, 0.75);

  const std::string text = report_text(r);
  EXPECT_NE(text.find("Compute dominates with 60.0 % of a step; exposed communication takes "
                      "10.0 %; rank 1 computes 1.17 times as long as the mean."),
            std::string::npos)
      << text;
  const auto json = nlohmann::json::parse(report_json(r));
  EXPECT_EQ(json.at("schema"), kProfileSchema);
  EXPECT_EQ(json.at("operations").at(0).at("operation"), "exchange");
}

TEST(Report, SurvivesTheWayToRankZero) {
  const RankProfile p = profile_of(0);
  const RankProfile q = unpack_rank_profile(pack(p));
  EXPECT_EQ(pack(q), pack(p));
  EXPECT_EQ(q.memory.moments, 42);
  EXPECT_EQ(q.timings.size(), 3u);
  EXPECT_EQ(q.layers[0].density.count, 1);
}

TEST(Report, ARunWithoutMeasuredStepsSaysSo) {
  EXPECT_NE(report_text(make_report({1, 1, 1}, {RankProfile{}})).find("No step was measured"),
            std::string::npos);
}

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
      collector.end_step(60, step > 0);
    }
    const RankProfile& p = collector.profile();
    EXPECT_EQ(p.steps, 2);
    EXPECT_EQ(p.tokens, 120);
    EXPECT_EQ(p.lost_records, 0);
    const OpTotals& totals =
        p.operations.at({"sp.outer", comm::OpKind::kAllReduce, Phase::kForward});
    EXPECT_EQ(totals.operations, 2);
    EXPECT_GT(totals.bytes_sent, 0);
    EXPECT_EQ(p.layers[0].density.mean(), 0.5);
    EXPECT_EQ(p.layers[0].coverage.count, 4);
    EXPECT_GT(p.compute_by_name_ns.at("work"), 0);
    EXPECT_GT(p.communication_ns, 0);
  });
}

}  // namespace
}  // namespace sprocket::runtime
