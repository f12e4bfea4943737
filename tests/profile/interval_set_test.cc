// The arithmetic of a step's parts, on numbers small enough to check by hand.
#include <gtest/gtest.h>

#include "runtime/profile/interval_set.h"
#include "runtime/profile/step_parts.h"

namespace sprocket::profile {
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

// Step [0, 100): compute [10, 40) and [60, 80), operations [30, 50), [70, 75) and [90, 120), copies
// [38, 45) and [52, 55), loading [0, 7) and [54, 57).
TEST(StepParts, DivideTheStep) {
  const std::vector<Interval> intervals = {
      {Activity::kCompute, "a", {}, 10, 40},           {Activity::kCopy, "c", {}, 38, 45},
      {Activity::kCommunicationWait, "w", {}, 40, 50}, {Activity::kCopy, "c", {}, 52, 55},
      {Activity::kCompute, "a", {}, 60, 80},           {Activity::kDataWait, "d", {}, 0, 7},
      {Activity::kDataWait, "d", {}, 54, 57}};
  const Spans in_flight = {{30, 50}, {70, 75}, {90, 120}};
  const StepParts parts = step_parts(step_sets(intervals, in_flight, {0, 100}), {0, 100});
  EXPECT_EQ(parts.wall_ns, 100);
  EXPECT_EQ(parts.compute_ns, 50);
  EXPECT_EQ(parts.communication_ns, 20 + 5 + 10);
  EXPECT_EQ(parts.overlapped_ns, 10 + 5);
  EXPECT_EQ(parts.exposed_ns, 10 + 10);
  EXPECT_EQ(parts.copies_ns, 3);
  EXPECT_EQ(parts.data_wait_ns, 7 + 2);
  EXPECT_EQ(parts.other_ns, 100 - 50 - 20 - 3 - 9);
}

}  // namespace
}  // namespace sprocket::profile
