// Who is waited for and why, on windows whose causes are known.
#include "runtime/profile/blame.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/profile/merge.h"
#include "runtime/profile/verdict.h"
#include "tests/data/temporary_folder.h"
#include "tests/profile/example_report.h"
#include "tests/profile/synthetic_window.h"

namespace sprocket::profile {
namespace {

using ::testing::HasSubstr;
using ::testing::SizeIs;
using testing::SyntheticWindow;

constexpr int64_t kMs = 1'000'000;
constexpr int64_t kHour = 3'600'000 * kMs;
const std::vector<int64_t> kClocks = {0, 5 * kHour, -3 * kHour, 7 * kHour};
constexpr int kSteps = 5, kLayers = 6;

// Each step: 2 ms of loading, then layers of 10 ms and a collective of 1 ms after each, `more`
// being done by each rank before the collective of a layer.
template <class More>
SyntheticWindow window(More&& more) {
  SyntheticWindow window(4, kClocks);
  for (int step = 0; step < kSteps; ++step) {
    for (const int rank : window.ranks()) window.load(rank, 2 * kMs);
    for (int layer = 0; layer < kLayers; ++layer) {
      for (const int rank : window.ranks()) {
        window.compute(rank, layer, 10 * kMs);
        window.density(rank, layer, 0.25);
        more(window, step, layer, rank);
      }
      window.collective(kMs);
    }
    window.end_step();
  }
  return window;
}

std::optional<Blame> blame_of(const SyntheticWindow& window) {
  return find_blame(window.sums(), window.ranks());
}

std::string line(const Blame& blame) { return verdict(testing::example_report(), blame).at(1); }

TEST(Blame, NobodyIsLate) {
  EXPECT_FALSE(blame_of(window([](auto&&...) {})));
}

TEST(Blame, RanksThatAreLateByTurnsAreNobodysFault) {
  EXPECT_FALSE(blame_of(window([](SyntheticWindow& w, int step, int layer, int rank) {
    if ((step * kLayers + layer) % 4 == rank) w.compute(rank, layer, 4 * kMs);
  })));
}

TEST(Blame, NoWaitOfLessThanAFiftieth) {
  // A step takes 2 + 6 x 11 + 1 = 69 ms; the three others wait 1 ms each: 1.1 % of all time.
  EXPECT_FALSE(blame_of(window([](SyntheticWindow& w, int, int layer, int rank) {
    if (layer == 2 && rank == 1) w.compute(rank, layer, kMs);
  })));
}

TEST(Blame, NamesTheLayersThatComputeMore) {
  const auto blame = blame_of(window([](SyntheticWindow& w, int, int layer, int rank) {
    if ((layer == 2 || layer == 3) && rank == 3) w.compute(rank, layer, 6 * kMs);
  }));
  ASSERT_TRUE(blame);
  EXPECT_EQ(blame->rank, 3);
  EXPECT_EQ(blame->cause, Cause::kCompute);
  EXPECT_EQ(blame->first_layer, 2);
  EXPECT_EQ(blame->last_layer, 3);
  EXPECT_DOUBLE_EQ(blame->excess_ms, 12);
  EXPECT_DOUBLE_EQ(blame->factor, 1.6);
  EXPECT_DOUBLE_EQ(blame->density_factor, 1);
  // Three ranks wait 12 ms of a step of 2 + 6 x 11 + 12 ms; rank 3 is the only one waited for.
  EXPECT_DOUBLE_EQ(blame->waited_share, 36.0 / (4 * 80));
  EXPECT_THAT(line(*blame), HasSubstr("waiting for rank 3: its layers 2-3 compute 1.6 times the "
                                      "mean of the others, 12.0 ms more a step"));
}

TEST(Blame, SaysThatARankSelectsMore) {
  SyntheticWindow w(2);
  for (const int rank : w.ranks()) {
    w.compute(rank, 0, rank == 1 ? 20 * kMs : 10 * kMs);
    w.density(rank, 0, rank == 1 ? 0.5 : 0.25);
  }
  w.collective(kMs);
  w.end_step();
  const auto blame = blame_of(w);
  ASSERT_TRUE(blame);
  EXPECT_DOUBLE_EQ(blame->density_factor, 2);
  EXPECT_THAT(line(*blame), HasSubstr("rank 1: its layer 0 computes 2.0 times"));
  EXPECT_THAT(line(*blame), HasSubstr("(it selects 2.0 times as much)"));
}

TEST(Blame, NamesTheKernelWhereNoLayerDoes) {
  const auto blame = blame_of(window([](SyntheticWindow& w, int, int layer, int rank) {
    if (layer == 5) w.compute(rank, -1, rank == 0 ? 15 * kMs : 5 * kMs, "optimizer.adamw");
  }));
  ASSERT_TRUE(blame);
  EXPECT_EQ(blame->rank, 0);
  EXPECT_EQ(blame->cause, Cause::kCompute);
  EXPECT_EQ(blame->first_layer, -1);
  EXPECT_EQ(blame->kernel, "optimizer.adamw");
  EXPECT_DOUBLE_EQ(blame->excess_ms, 10);
  EXPECT_THAT(line(*blame), HasSubstr("waiting for rank 0: optimizer.adamw"));
}

// Cause, what the rank does more, and what the verdict calls it.
struct Planted {
  Cause cause;
  void (*more)(SyntheticWindow&, int rank);
  double factor;
  const char* words;
};

class BlameOf : public ::testing::TestWithParam<Planted> {};

TEST_P(BlameOf, ACauseOutsideTheLayers) {
  const auto blame = blame_of(window([](SyntheticWindow& w, int, int layer, int rank) {
    if (layer == 1) w.copy(rank, kMs);
    if (layer == 1) w.idle(rank, kMs);
    if (layer == 1 && rank == 2) GetParam().more(w, rank);
  }));
  ASSERT_TRUE(blame);
  EXPECT_EQ(blame->rank, 2);
  EXPECT_EQ(blame->cause, GetParam().cause);
  EXPECT_DOUBLE_EQ(blame->excess_ms, 8);
  EXPECT_DOUBLE_EQ(blame->factor, GetParam().factor);
  EXPECT_THAT(line(*blame), HasSubstr(std::string("waiting for rank 2: ") + GetParam().words));
}

INSTANTIATE_TEST_SUITE_P(
    Causes, BlameOf,
    ::testing::Values(
        Planted{Cause::kDataWait, [](SyntheticWindow& w, int rank) { w.load(rank, 8 * kMs); }, 5,
                "loading its data takes 5.0 times"},
        Planted{Cause::kCopies, [](SyntheticWindow& w, int rank) { w.copy(rank, 8 * kMs); }, 9,
                "its copies take 9.0 times"},
        Planted{Cause::kOther, [](SyntheticWindow& w, int rank) { w.idle(rank, 8 * kMs); }, 9,
                "its work between scopes takes 9.0 times"}));

TEST(Blame, ASlowLinkIsNoLateness) {
  SyntheticWindow w(4, kClocks);
  for (int step = 0; step < kSteps; ++step) {
    for (const int rank : w.ranks()) w.compute(rank, 0, 10 * kMs);
    w.collective(kMs, /*slow_rank=*/1, /*slow_ns=*/4 * kMs);
    w.end_step();
  }
  const auto blame = blame_of(w);
  ASSERT_TRUE(blame);
  EXPECT_EQ(blame->rank, 1);
  EXPECT_EQ(blame->cause, Cause::kLink);
  EXPECT_DOUBLE_EQ(blame->waited_share, 12.0 / (4 * 15));
  EXPECT_THAT(line(*blame), HasSubstr("rank 1: its messages arrive last"));
}

// The slow rank is done early, so that it looks late, and waits for the others at the next
// operation.
TEST(Blame, ASlowLinkBehindBuffersIsNoLateness) {
  SyntheticWindow w(4, kClocks);
  for (int step = 0; step < kSteps; ++step) {
    for (int layer = 0; layer < 2; ++layer) {
      for (const int rank : w.ranks()) w.compute(rank, layer, 10 * kMs);
      if (layer == 0) w.collective(kMs, /*slow_rank=*/1, /*slow_ns=*/9 * kMs, /*buffered=*/true);
      if (layer == 1) w.collective(kMs);
    }
    w.end_step();
  }
  const auto blame = blame_of(w);
  ASSERT_TRUE(blame);
  EXPECT_EQ(blame->rank, 1);
  EXPECT_EQ(blame->cause, Cause::kLink);
  // The others waited 3 x 9 ms for it, and it 9 ms for one of them.
  EXPECT_DOUBLE_EQ(blame->excess_ms, (27.0 - 9.0 / 3) / 3);
}

// Rank 1's messages arrive last because it came last.
TEST(Blame, LatenessIsNoSlowLink) {
  const SyntheticWindow w = window([](SyntheticWindow& w, int, int layer, int rank) {
    if (rank == 1) w.compute(rank, layer, 3 * kMs);
  });
  const auto blame = blame_of(w);
  ASSERT_TRUE(blame);
  EXPECT_EQ(blame->rank, 1);
  EXPECT_EQ(blame->cause, Cause::kCompute);
  EXPECT_EQ(blame->first_layer, 0);
  EXPECT_EQ(blame->last_layer, kLayers - 1);
  EXPECT_DOUBLE_EQ(blame->factor, 1.3);
  EXPECT_DOUBLE_EQ(blame->waited_share, 3.0 * 18 / (4 * 86));
  EXPECT_EQ(w.sums().ranks[1].last_ns, kSteps * kLayers * 3 * kMs);
  EXPECT_EQ(w.sums().ranks[1].link_ns, 0);
}

// In a ring only the next rank waits for the slow one; the others' operations are as short as its
// own, or shorter.
TEST(Blame, ARingWaitsForTheRankBefore) {
  SyntheticWindow w(4, kClocks);
  for (int step = 0; step < kSteps; ++step) {
    for (const int rank : w.ranks()) w.compute(rank, 0, rank == 2 ? 20 * kMs : 10 * kMs);
    w.shift(kMs);
    w.end_step();
  }
  const auto blame = blame_of(w);
  ASSERT_TRUE(blame);
  EXPECT_EQ(blame->rank, 2);
  EXPECT_EQ(blame->cause, Cause::kCompute);
  EXPECT_DOUBLE_EQ(blame->excess_ms, 10);
  for (const int rank : w.ranks()) {
    EXPECT_EQ(w.sums().ranks[rank].held_up_ns, rank == 2 ? kSteps * 10 * kMs : 0) << rank;
  }
}

// Another rank works more, by less than the link takes.
TEST(Blame, ASlowLinkComesBeforeALittleMoreWork) {
  SyntheticWindow w(4, kClocks);
  for (int step = 0; step < kSteps; ++step) {
    for (const int rank : w.ranks()) w.compute(rank, 0, rank == 2 ? 13 * kMs : 10 * kMs);
    w.collective(kMs, /*slow_rank=*/1, /*slow_ns=*/6 * kMs);
    w.end_step();
  }
  const auto blame = blame_of(w);
  ASSERT_TRUE(blame);
  EXPECT_EQ(blame->rank, 1);
  EXPECT_EQ(blame->cause, Cause::kLink);
}

// Rank 0's messages come last by far, behind compute; what the others stand still for is its work.
TEST(Blame, ASlowLinkThatComputeHidesCostsNothing) {
  SyntheticWindow w(4, kClocks);
  for (int step = 0; step < kSteps; ++step) {
    w.behind_compute(12 * kMs, kMs, /*slow_rank=*/0, /*slow_ns=*/10 * kMs);
    for (const int rank : w.ranks()) w.compute(rank, 1, rank == 0 ? 13 * kMs : 10 * kMs);
    w.collective(kMs);
    w.end_step();
  }
  const auto blame = blame_of(w);
  ASSERT_TRUE(blame);
  EXPECT_EQ(blame->rank, 0);
  EXPECT_EQ(blame->cause, Cause::kCompute);
  EXPECT_EQ(blame->first_layer, 1);
  EXPECT_DOUBLE_EQ(blame->excess_ms, 3);
  EXPECT_DOUBLE_EQ(blame->waited_share, 3.0 * 3 / (4 * 26));
}

// The other way around: 3 of 10 ms are exposed, and the rank works 1 ms more.
TEST(Blame, ASlowLinkCountsByWhatComputeDoesNotHide) {
  SyntheticWindow w(4, kClocks);
  for (int step = 0; step < kSteps; ++step) {
    w.behind_compute(8 * kMs, kMs, /*slow_rank=*/0, /*slow_ns=*/10 * kMs);
    for (const int rank : w.ranks()) w.compute(rank, 1, rank == 0 ? 11 * kMs : 10 * kMs);
    w.collective(kMs);
    w.end_step();
  }
  const auto blame = blame_of(w);
  ASSERT_TRUE(blame);
  EXPECT_EQ(blame->rank, 0);
  EXPECT_EQ(blame->cause, Cause::kLink);
  EXPECT_DOUBLE_EQ(blame->excess_ms, 3);
  // The three others stand still for 3 ms and then for 1 ms.
  EXPECT_DOUBLE_EQ(blame->waited_share, 3.0 * 4 / (4 * 23));
}

// Who waited for it is late at the next hop, and so on around the ring: each looks as late as it.
TEST(Blame, AChainOfWaitsLeadsToTheRankThatWorks) {
  SyntheticWindow w(4, kClocks);
  for (int step = 0; step < kSteps; ++step) {
    for (const int rank : w.ranks()) w.compute(rank, 0, rank == 2 ? 20 * kMs : 10 * kMs);
    for (int hop = 0; hop < 3; ++hop) {
      w.shift(kMs);
      for (const int rank : w.ranks()) w.compute(rank, 0, kMs);
    }
    w.end_step();
  }
  const auto blame = blame_of(w);
  ASSERT_TRUE(blame);
  EXPECT_EQ(blame->rank, 2);
  EXPECT_EQ(blame->cause, Cause::kCompute);
  EXPECT_DOUBLE_EQ(blame->excess_ms, 10);
  // Ranks 3, 0 and 1 each waited 10 ms, the first two being waited for as well.
  EXPECT_DOUBLE_EQ(blame->waited_share, 30.0 / (4 * 26));
}

// The same through the ranks' files, whose clocks are hours apart.
TEST(Verdict, OfRecordedFiles) {
  const testing::TemporaryFolder folder;
  window([](SyntheticWindow& w, int, int layer, int rank) {
    if (layer == 4 && rank == 2) w.compute(rank, layer, 12 * kMs);
  }).write(folder.path().string());
  const Report report = merge_events(folder.path().string(), {});
  EXPECT_TRUE(report.window.complete);
  EXPECT_EQ(report.window.steps, kSteps);
  ASSERT_THAT(report.ranks, SizeIs(4));
  for (const RankRow& rank : report.ranks) {
    const bool late = rank.rank == 2;
    EXPECT_DOUBLE_EQ(rank.step_ms, 80);
    EXPECT_DOUBLE_EQ(rank.compute_ms, late ? 72 : 60);
    EXPECT_DOUBLE_EQ(rank.exposed_ms, late ? 6 : 18);
    EXPECT_DOUBLE_EQ(rank.data_wait_ms, 2);
    EXPECT_DOUBLE_EQ(rank.other_ms, 0);
    EXPECT_DOUBLE_EQ(rank.wait_ms, late ? 0 : 12);
    EXPECT_DOUBLE_EQ(rank.caused_wait_ms, late ? 36 : 0);
  }
  EXPECT_LE(report.verdict.size(), kVerdictLines);
  EXPECT_EQ(report.verdict.at(1),
            "11.2 % is waiting for rank 2: its layer 4 computes 2.2 times the mean of the others, "
            "12.0 ms more a step");
}

TEST(Blame, OneRankWaitsForNobody) {
  SyntheticWindow w(1);
  w.compute(0, 0, 10 * kMs);
  w.collective(kMs);
  w.end_step();
  EXPECT_FALSE(blame_of(w));
}

// With everything that there is to say.
TEST(Verdict, HasAtMostFiveLines) {
  Report report = testing::example_report();
  report.window.complete = false;
  report.window.notes = {"rank 3 wrote nothing", "rank 2 ended early"};
  Blame blame;
  blame.cause = Cause::kUnknown;
  report.verdict = verdict(report, blame);
  report.prediction.emplace().advice = Advice{"parallel.ulysses: 4", 12, "sprocket plan"};
  add_advice_line(report);
  EXPECT_THAT(report.verdict, SizeIs(kVerdictLines));
}

}  // namespace
}  // namespace sprocket::profile
