#include "kernels/level_selection.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/error.h"
#include "base/philox.h"
#include "kernels/mass_selection.h"
#include "kernels/table_rows.h"

namespace sprocket::kernels {
namespace {

using testing::Each;
using testing::ElementsAre;
using testing::ElementsAreArray;
using testing::IsEmpty;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::vector<Decimal> decimals(std::initializer_list<const char*> texts) {
  std::vector<Decimal> values;
  for (const char* text : texts) values.push_back(Decimal::parse(text));
  return values;
}

// Counts 0 .. 7 with many ties, as a stand-in for scores: sums are exact, and a threshold of so
// many hundredths can be compared in integers.
std::vector<int> small_counts(int count, uint64_t sample) {
  const RandomStream stream(4, 0, sample, RandomPurpose::kTest);
  std::vector<int> values(count);
  for (int i = 0; i < count; ++i) values[i] = static_cast<int>(stream.below(i, 8));
  return values;
}

template <class T>
std::vector<int32_t> sorted_ids(const std::vector<T>& values) {
  std::vector<int32_t> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return values[a] > values[b]; });
  return order;
}

std::vector<int32_t> row_of(const SegmentTable& table, int64_t row) {
  return {table.kv_block.begin() + table.row_offsets[row],
          table.kv_block.begin() + table.row_offsets[row + 1]};
}

// ---- order ----

TEST(ScoreOrderTest, SortsStablyWithNanLast) {
  const float inf = std::numeric_limits<float>::infinity();
  const std::vector<float> scores{0.0f, 1.5f, kNan, -0.0f, inf, -2.0f, 1.5f, -inf, kNan, 1e-40f};
  ScoreOrder<float> order;
  EXPECT_THAT(order.sort(scores), ElementsAre(4, 1, 6, 9, 0, 3, 5, 7, 2, 8));
  EXPECT_THAT(order.sort({}), IsEmpty());
}

template <class A>
class ScoreOrderTypedTest : public testing::Test {};
using ScoreTypes = testing::Types<float, double>;
TYPED_TEST_SUITE(ScoreOrderTypedTest, ScoreTypes);

TYPED_TEST(ScoreOrderTypedTest, EqualsAStableSort) {
  ScoreOrder<TypeParam> order;
  for (const int count : {1, 2, 255, 256, 700, 3}) {
    std::vector<float> normal(count);
    RandomStream(9, 0, count, RandomPurpose::kTest).normal(normal);
    std::vector<TypeParam> scores(normal.begin(), normal.end());
    for (int i = 0; i < count; i += 3) scores[i] = std::round(scores[i] * 4) / 4;
    EXPECT_THAT(order.sort(scores), ElementsAreArray(sorted_ids(scores)));
  }
}

// ---- levels ----

template <class A = float>
std::vector<uint8_t> levels_of(const LevelSelection& selection, const std::vector<A>& scores,
                               const std::vector<uint8_t>& caps = {}) {
  LevelAssigner<A> assigner(selection, static_cast<int>(scores.size()));
  std::vector<uint8_t> levels(scores.size(), 99);
  assigner.assign(scores, caps, levels);
  return levels;
}

LevelSelection by_mass(LevelRule rule, std::initializer_list<const char*> thresholds,
                       const char* least = "0.06") {
  return {rule, decimals(thresholds), Decimal::parse(least), {}};
}
LevelSelection by_quota(std::initializer_list<const char*> quotas) {
  return {LevelRule::kQuota, {}, {}, decimals(quotas)};
}

TEST(LevelsTest, PaperIsTheSmallestThresholdReached) {
  const auto paper = by_mass(LevelRule::kPaper, {"0.4", "0.5", "0.6", "0.8"});
  // Sorted and cumulated: 40, 50, 60, 69, 78, 86, 94, 100.
  EXPECT_THAT(levels_of(paper, std::vector<float>{10, 40, 9, 10, 6, 9, 8, 8}),
              ElementsAre(2, 1, 4, 3, 0, 4, 0, 0));
}

TEST(LevelsTest, ATopBlockHeavierThanEveryThresholdLeavesAPaperRowEmpty) {
  const std::vector<float> scores{1, 90, 9};
  EXPECT_THAT(levels_of(by_mass(LevelRule::kPaper, {"0.4", "0.5", "0.6", "0.8"}), scores), Each(0));
  EXPECT_THAT(levels_of(by_mass(LevelRule::kCover, {"0.4", "0.5", "0.6", "0.8"}), scores),
              ElementsAre(0, 1, 0));
}

TEST(LevelsTest, CoverKeepsALeastNumberAtTheFinestLevel) {
  std::vector<float> scores(50, 0.001f);
  scores[17] = 100;
  const auto cover = by_mass(LevelRule::kCover, {"0.4", "0.5", "0.6", "0.8"});
  const auto levels = levels_of(cover, scores);
  EXPECT_EQ(std::count(levels.begin(), levels.end(), 1), 4);  // floor(.06 * 50) + 1
  EXPECT_EQ(levels[17], 1);
  EXPECT_THAT(std::vector<uint8_t>(levels.begin(), levels.begin() + 4), ElementsAre(1, 1, 1, 0));
  EXPECT_THAT(levels_of(by_mass(LevelRule::kCover, {"0.4", "0.5", "0.6", "0.8"}, "1"), scores),
              Each(1));
}

TEST(LevelsTest, QuotasAreFloorsOfCumulatedShares) {
  const auto quota = by_quota({"0.1", "0.05", "0", "0.2"});
  for (const int blocks : {1, 2, 9, 10, 19, 20, 256, 591}) {
    const auto levels = levels_of(quota, std::vector<float>(blocks, 1.0f));
    const auto count = [&](int level) { return std::count(levels.begin(), levels.end(), level); };
    EXPECT_EQ(count(1), blocks * 10 / 100);
    EXPECT_EQ(count(2), blocks * 15 / 100 - blocks * 10 / 100);
    EXPECT_EQ(count(3), 0);
    EXPECT_EQ(count(4), blocks * 35 / 100 - blocks * 15 / 100);
    EXPECT_TRUE(std::is_sorted(levels.begin(), levels.begin() + blocks * 35 / 100));
  }
  EXPECT_THAT(levels_of(by_quota({"0.7", "0.3"}), std::vector<float>(10, 1.0f)),
              ElementsAre(1, 1, 1, 1, 1, 1, 1, 2, 2, 2));
  EXPECT_THAT(levels_of(by_quota({"0.9", "0.9"}), std::vector<float>(2, 1.0f)), ElementsAre(1, 2));
}

TEST(LevelsTest, ACapMakesFinerAndSelectsNothing) {
  const auto quota = by_quota({"0.25", "0.25", "0", "0.25"});
  const std::vector<float> scores{8, 7, 6, 5, 4, 3, 2, 1};
  EXPECT_THAT(levels_of(quota, scores), ElementsAre(1, 1, 2, 2, 4, 4, 0, 0));
  EXPECT_THAT(levels_of(quota, scores, {4, 1, 1, 3, 3, 4, 4, 1}),
              ElementsAre(1, 1, 1, 2, 3, 4, 0, 0));
}

TEST(LevelsTest, NanWeighsNothingAndComesLast) {
  const auto cover = by_mass(LevelRule::kCover, {"0.5", "0.5", "0.5", "0.9"});
  EXPECT_THAT(levels_of(cover, std::vector<float>{kNan, 4, kNan, 6, 10}),
              ElementsAre(0, 4, 0, 1, 1));
  EXPECT_THAT(levels_of(cover, std::vector<float>(5, kNan)), Each(1));
  EXPECT_THAT(levels_of(cover, std::vector<float>(5, 0.0f)), Each(1));
}

// The rules word by word in integers, thresholds in hundredths.
std::vector<uint8_t> reference_levels(LevelRule rule, const std::vector<int>& counts,
                                      const std::vector<int>& hundredths, int least_hundredths) {
  const std::vector<int32_t> order = sorted_ids(counts);
  const int total = std::accumulate(counts.begin(), counts.end(), 0);
  std::vector<uint8_t> levels(counts.size(), 0);
  for (int t = static_cast<int>(hundredths.size()); t >= 1; --t) {
    int cumulated = 0;
    bool crossed = false;
    for (size_t r = 0; r < order.size(); ++r) {
      cumulated += counts[order[r]];
      const bool inside = 100 * cumulated <= hundredths[t - 1] * total;
      bool taken = inside;
      if (rule == LevelRule::kCover) {
        taken = inside || !crossed;
        if (t == 1 &&
            static_cast<int>(r) < least_hundredths * static_cast<int>(order.size()) / 100 + 1) {
          taken = true;
        }
      }
      if (!inside) crossed = true;
      if (taken) levels[order[r]] = static_cast<uint8_t>(t);
    }
  }
  return levels;
}

TYPED_TEST(ScoreOrderTypedTest, LevelsEqualTheRulesWrittenOut) {
  for (const int blocks : {1, 2, 3, 15, 20, 90, 256}) {
    for (uint64_t sample = 0; sample < 6; ++sample) {
      std::vector<int> counts = small_counts(blocks, sample);
      if (sample == 0) counts.assign(blocks, 1);  // thresholds are hit exactly
      if (sample == 1) counts.assign(blocks, 0);
      std::vector<TypeParam> scores(counts.begin(), counts.end());
      for (auto& score : scores) score /= 64;
      for (const std::vector<int>& tau : std::vector<std::vector<int>>{
               {40, 50, 60, 80}, {50, 60, 70, 80}, {70, 70, 90, 100}, {0, 0, 30, 30}, {100}}) {
        for (const LevelRule rule : {LevelRule::kPaper, LevelRule::kCover}) {
          LevelSelection selection;
          selection.rule = rule;
          for (const int value : tau) selection.thresholds.push_back(Decimal::ratio(value, 2));
          EXPECT_EQ(levels_of(selection, scores), reference_levels(rule, counts, tau, 6))
              << blocks << " blocks, sample " << sample;
        }
      }
    }
  }
}

TEST(LevelsTest, DescendingThresholdsAreABug) {
  EXPECT_THROW(LevelAssigner<float>(by_mass(LevelRule::kPaper, {"0.5", "0.4"}), 3), InternalError);
  EXPECT_THROW(LevelAssigner<float>(by_quota({"0.5", "-0.4"}), 30), InternalError);
}

// ---- mass ----

template <class A = float>
std::vector<int32_t> kept(const MassSelection& selection, const std::vector<A>& scores) {
  MassSelector<A> selector(selection, static_cast<int>(scores.size()));
  const auto ids = selector.select(scores);
  return {ids.begin(), ids.end()};
}

MassSelection mass_rule(const char* mass, bool crossing, const char* least, const char* most) {
  return {Decimal::parse(mass), crossing, Decimal::parse(least), Decimal::parse(most)};
}

TEST(MassTest, TheCrossingBlockIsAnOption) {
  const std::vector<float> scores{10, 50, 5, 30, 5};
  EXPECT_THAT(kept(mass_rule("0.85", false, "0", "1"), scores), ElementsAre(1, 3));
  EXPECT_THAT(kept(mass_rule("0.85", true, "0", "1"), scores), ElementsAre(1, 3, 0));
  // .9 is reached exactly by block 0, which is then the crossing one.
  EXPECT_THAT(kept(mass_rule("0.9", false, "0", "1"), scores), ElementsAre(1, 3));
  EXPECT_THAT(kept(mass_rule("0.9", true, "0", "1"), scores), ElementsAre(1, 3, 0));
  EXPECT_THAT(kept(mass_rule("1", true, "0", "1"), scores), ElementsAre(1, 3, 0, 2, 4));
}

TEST(MassTest, CountsAreClampedToFloors) {
  std::vector<float> scores(59, 1.0f);
  EXPECT_EQ(kept(mass_rule("0.95", false, "0.05", "0.17"), scores).size(), 10u);  // floor(10.03)
  scores[40] = 1e6f;
  EXPECT_THAT(kept(mass_rule("0.95", false, "0.05", "0.17"), scores), ElementsAre(40, 0));
  EXPECT_THAT(kept(mass_rule("0.95", false, "0", "0.001"), scores), ElementsAre(40));
  EXPECT_THAT(kept(mass_rule("0.95", false, "0.05", "0.17"), std::vector<float>{3}),
              ElementsAre(0));
  EXPECT_EQ(kept(mass_rule("0.95", false, "0.5", "0.5"), std::vector<float>(20, kNan)).size(), 10u);
  EXPECT_THAT(kept(mass_rule("0.95", false, "0.05", "0.17"), std::vector<float>{}), IsEmpty());
  EXPECT_THROW(kept(mass_rule("0.95", false, "0.5", "0.2"), scores), InternalError);
}

TYPED_TEST(ScoreOrderTypedTest, MassEqualsTheRuleWrittenOut) {
  for (const int blocks : {1, 3, 20, 90, 256}) {
    for (uint64_t sample = 0; sample < 5; ++sample) {
      std::vector<int> counts = small_counts(blocks, 50 + sample);
      if (sample == 0) counts.assign(blocks, 1);
      std::vector<TypeParam> scores(counts.begin(), counts.end());
      const std::vector<int32_t> order = sorted_ids(counts);
      const int total = std::accumulate(counts.begin(), counts.end(), 0);
      for (const int mass : {30, 70, 95}) {
        for (const bool crossing : {false, true}) {
          for (const auto& [least, most] : {std::pair{0, 100}, {5, 17}, {50, 50}}) {
            int count = 0, cumulated = 0;
            for (const int32_t id : order) {
              cumulated += counts[id];
              if (100 * cumulated >= mass * total) break;
              ++count;
            }
            count += crossing ? 1 : 0;
            count = std::max(count, std::max(1, least * blocks / 100));
            count = std::min({count, std::max(1, most * blocks / 100), blocks});
            const MassSelection selection{Decimal::ratio(mass, 2), crossing,
                                          Decimal::ratio(least, 2), Decimal::ratio(most, 2)};
            EXPECT_THAT(kept(selection, scores),
                        ElementsAreArray(order.begin(), order.begin() + count));
          }
        }
      }
    }
  }
}

// ---- tables ----

struct Scores {
  static constexpr int kBlocks = 14, kSamples = 4, kDim = 16;
  std::vector<int32_t> counts = std::vector<int32_t>(kBlocks, kSamples);
  std::vector<float> q = std::vector<float>(4 * kBlocks * kSamples * kDim);
  std::vector<float> k = q;
  SampledScoreProblem<float> problem;

  Scores() {
    RandomStream(21, 0, 0, RandomPurpose::kTest).normal(q);
    RandomStream(21, 0, 1, RandomPurpose::kTest).normal(k);
    problem = {.batch = 2,
               .heads = 2,
               .query_blocks = kBlocks,
               .kv_blocks = kBlocks,
               .samples = kSamples,
               .head_dim = kDim,
               .scale = 1,
               .q = q.data(),
               .k = k.data(),
               .q_counts = counts,
               .k_counts = counts};
  }
  Scores(const Scores&) = delete;

  // The call of a rank that holds query blocks [first, last) of one (batch, head).
  SampledScoreProblem<float> part(int64_t batch_head, int first, int last) const {
    SampledScoreProblem<float> p = problem;
    p.batch = p.heads = 1;
    p.first_query_block = first;
    p.query_blocks = last - first;
    p.q_counts = p.q_counts.subspan(first, last - first);
    p.q += (batch_head * kBlocks + first) * kSamples * kDim;
    p.k += batch_head * kBlocks * kSamples * kDim;
    return p;
  }
};

struct KeepRows : ScoreRowSink<float> {
  std::vector<std::vector<float>> rows = std::vector<std::vector<float>>(4 * Scores::kBlocks);
  void take(int, int64_t batch_head, int query_block, std::span<const float> scores) override {
    rows[batch_head * Scores::kBlocks + query_block] = {scores.begin(), scores.end()};
  }
};

TEST(SelectLevelsTest, TablesListTheSegmentsOfTheLevels) {
  Scores scores;
  const std::vector<int64_t> offsets{0,   64,  71,  72,  136, 199, 263, 266,
                                     274, 282, 290, 292, 300, 301, 303};
  const std::vector<int> widths{1, 2, 4, 8};
  const PyramidLayout layout = make_pyramid_layout(offsets, widths);
  std::vector<uint8_t> caps(4 * Scores::kBlocks, 4);
  for (size_t i = 0; i < caps.size(); i += 3) caps[i] = static_cast<uint8_t>(1 + i % 4);
  for (const LevelRule rule : {LevelRule::kPaper, LevelRule::kCover, LevelRule::kQuota}) {
    const LevelSelection selection{rule, decimals({"0.4", "0.5", "0.6", "0.8"}),
                                   Decimal::parse("0.06"), decimals({"0.1", "0.2", "0.1", "0.3"})};
    for (const int prefix : {0, 3, 14}) {
      scores.problem.prefix_blocks = prefix;
      scores.problem.threads = 1;
      KeepRows rows;
      sampled_scores(scores.problem, rows);
      const int64_t pairs = 4 * 14 * 14;
      std::vector<uint8_t> levels(pairs + 2, 77);
      const SegmentTable table =
          select_levels(scores.problem, selection, layout, caps.data(), levels.data() + 1);
      EXPECT_EQ(levels.front(), 77);
      EXPECT_EQ(levels.back(), 77);
      EXPECT_EQ(table.kv_blocks, layout.segments());
      double density = 0;
      for (int64_t row = 0; row < 4 * 14; ++row) {
        const int64_t batch_head = row / 14;
        std::vector<uint8_t> expected(14, 1);
        if (row % 14 >= prefix) {
          const auto cap = caps.begin() + batch_head * 14;
          const auto video = levels_of(selection, rows.rows[row], {cap + prefix, cap + 14});
          std::copy(video.begin(), video.end(), expected.begin() + prefix);
        }
        EXPECT_THAT(std::vector<uint8_t>(levels.begin() + 1 + row * 14,
                                         levels.begin() + 1 + (row + 1) * 14),
                    ElementsAreArray(expected));
        std::vector<int32_t> ids;
        for (int block = 0; block < 14; ++block) {
          for (int32_t id = 0; id < layout.segments(); ++id) {
            if (id >= layout.first_segment[block] && id < layout.first_segment[block + 1] &&
                layout.level[id] == expected[block]) {
              ids.push_back(id);
            }
          }
          if (expected[block] > 0) density += 1.0 / widths[expected[block] - 1] / (4 * 14 * 14);
        }
        EXPECT_EQ(row_of(table, row), ids);
      }
      const std::vector<double> of_heads = pyramid_pairs(table, layout);
      const double executed = std::accumulate(of_heads.begin(), of_heads.end(), 0.0);
      EXPECT_NEAR(executed / static_cast<double>(pairs), density, 1e-12);
      scores.problem.threads = 3;
      EXPECT_EQ(table, select_levels(scores.problem, selection, layout, caps.data(), nullptr));
      scores.problem.threads = 1;
      const SegmentTable part =
          select_levels(scores.part(3, 2, 9), selection, layout, caps.data() + 3 * 14, nullptr);
      for (int row = 0; row < 7; ++row) {
        EXPECT_EQ(row_of(part, row), row_of(table, 3 * 14 + 2 + row));
      }
    }
  }
}

TEST(SelectByMassTest, TablesListThePrefixAndTheKeptBlocks) {
  Scores scores;
  const MassSelection selection = mass_rule("0.7", true, "0.1", "0.5");
  for (const int prefix : {0, 3, 14}) {
    scores.problem.prefix_blocks = prefix;
    scores.problem.threads = 1;
    KeepRows rows;
    sampled_scores(scores.problem, rows);
    const SegmentTable table = select_by_mass(scores.problem, selection);
    EXPECT_EQ(table.kv_blocks, 14);
    for (int64_t row = 0; row < 4 * 14; ++row) {
      std::vector<int32_t> expected(prefix);
      std::iota(expected.begin(), expected.end(), 0);
      if (row % 14 < prefix) {
        for (int id = prefix; id < 14; ++id) expected.push_back(id);
      } else {
        for (const int32_t id : kept(selection, rows.rows[row])) expected.push_back(prefix + id);
        std::sort(expected.begin(), expected.end());
      }
      EXPECT_EQ(row_of(table, row), expected);
    }
    scores.problem.threads = 3;
    EXPECT_EQ(table, select_by_mass(scores.problem, selection));
    scores.problem.threads = 1;
    const SegmentTable part = select_by_mass(scores.part(2, 1, 13), selection);
    for (int row = 0; row < 12; ++row) {
      EXPECT_EQ(row_of(part, row), row_of(table, 2 * 14 + 1 + row));
    }
  }
}

// Scores of a device, whose rows of prefix query blocks hold anything.
TEST(GivenScoresTest, SelectWithABudgetWhatScoresThatAreMadeSelect) {
  Scores scores;
  const PyramidLayout layout = make_pyramid_layout(
      std::vector<int64_t>{0, 64, 71, 72, 136, 199, 263, 266, 274, 282, 290, 292, 300, 301, 303},
      std::vector<int>{1, 2, 4, 8});
  const MassSelection by_mass_of_scores = mass_rule("0.7", true, "0.1", "0.9");
  const LevelSelection levels = by_mass(LevelRule::kCover, {"0.4", "0.5", "0.6", "0.8"});
  const std::vector<uint8_t> caps(4 * Scores::kBlocks, 3);
  for (const int prefix : {0, 3}) {
    scores.problem.prefix_blocks = prefix;
    KeepRows rows;
    sampled_scores(scores.problem, rows);
    std::vector<float> values;
    for (size_t row = 0; row < rows.rows.size(); ++row) {
      const bool video = static_cast<int>(row) % Scores::kBlocks >= prefix;
      const auto of_row = video ? rows.rows[row] : std::vector<float>(14 - prefix, 1e9f);
      values.insert(values.end(), of_row.begin(), of_row.end());
    }
    const GivenScores<float> given{.batch = scores.problem.batch,
                                   .heads = scores.problem.heads,
                                   .query_blocks = 14,
                                   .kv_blocks = 14,
                                   .scores = values,
                                   .prefix_blocks = prefix,
                                   .threads = 2};
    KeepRows taken;
    sampled_scores(given, taken);
    EXPECT_EQ(taken.rows, rows.rows);
    const DomainBudget budget{BudgetForm::kFlat, {prefix, 8, 14}, {Decimal::parse("0.3")}, 0};
    const auto expect_same = [&](auto made, auto from_given) {
      EXPECT_EQ(select_alone(budget, *made, 1), select_alone(budget, *from_given, 2));
    };
    expect_same(budgeted_selection<float>(scores.problem, by_mass_of_scores, budget, {0, 2}),
                budgeted_selection<float>(given, by_mass_of_scores, budget, {0, 2}));
    expect_same(
        budgeted_selection<float>(scores.problem, levels, layout, caps.data(), budget, {0, 2}),
        budgeted_selection<float>(given, levels, layout, caps.data(), budget, {0, 2}));
  }
  GivenScores<float> broken{.batch = 1, .heads = 1, .query_blocks = 2, .kv_blocks = 2};
  KeepRows sink;
  EXPECT_THROW(sampled_scores(broken, sink), InternalError);
}

TEST(TableRowsTest, ARowThatIsMissingIsABug) {
  TableRows rows(1, 1, 2, 5, 1);
  rows.add(0, 1, std::vector<int32_t>{2, 4});
  EXPECT_THROW(rows.table(), InternalError);
  rows.add(0, 0, {});
  EXPECT_THAT(rows.table().row_offsets, ElementsAre(0, 0, 2));
}

// ---- similarity caps ----

template <class T>
class SimilarityTest : public testing::Test {};
using ElementTypes = testing::Types<double, float, BFloat16>;
TYPED_TEST_SUITE(SimilarityTest, ElementTypes);

const std::vector<int> kWidths{1, 2, 4, 8};
const std::vector<double> kThresholds{0.70, 0.65, 0.60};

TYPED_TEST(SimilarityTest, EqualsTheDefinition) {
  using T = TypeParam;
  const std::vector<int64_t> offsets{10, 138, 139, 142, 149, 276, 276, 278};
  const int batch = 2, heads = 3, rows = 268, dim = 24, blocks = 7;
  std::vector<float> noise(batch * rows * heads * dim);
  RandomStream(31, 0, 0, RandomPurpose::kTest).normal(noise);
  std::vector<T> k(noise.size());
  // Tokens of one direction plus noise whose size differs between heads.
  for (size_t i = 0; i < k.size(); ++i) {
    const int head = static_cast<int>(i / dim % heads);
    k[i] = T(static_cast<float>(std::sin(i % dim) + (0.55f + 0.2f * head) * noise[i]));
  }
  std::fill_n(k.begin() + 128 * heads * dim, heads * dim, T(0.0f));  // block 1, a zero vector
  const auto view = contiguous_view<const T>(k.data(), rows, heads, dim);
  std::vector<uint8_t> caps(batch * heads * blocks + 2, 55);
  similarity_caps<T>(view, offsets, batch, heads, dim, kWidths, kThresholds, caps.data() + 1, 1);
  EXPECT_EQ(caps.front(), 55);
  EXPECT_EQ(caps.back(), 55);
  auto again = caps;
  similarity_caps<T>(view, offsets, batch, heads, dim, kWidths, kThresholds, again.data() + 1, 3);
  EXPECT_EQ(caps, again);
  std::vector<int> seen(5, 0);
  for (int b = 0; b < batch; ++b) {
    for (int h = 0; h < heads; ++h) {
      for (int block = 0; block < blocks; ++block) {
        const auto at = [&](int64_t row, int d) -> double {
          const T value = view.row(b, row - 10, h)[d];
          if constexpr (std::is_same_v<T, BFloat16>) {
            return static_cast<float>(value);
          } else {
            return value;
          }
        };
        int cap = 1;
        double margin = 1;
        for (int level = 2; level <= 4; ++level) {
          double sum = 0;
          int groups = 0;
          for (int64_t first = offsets[block]; first < offsets[block + 1];
               first += kWidths[level - 1], ++groups) {
            const int64_t last =
                std::min<int64_t>(first + kWidths[level - 1], offsets[block + 1]) - 1;
            double product = 0, left = 0, right = 0;
            for (int d = 0; d < dim; ++d) {
              product += at(first, d) * at(last, d);
              left += at(first, d) * at(first, d);
              right += at(last, d) * at(last, d);
            }
            sum += first == last ? 1 : product == 0 ? 0 : product / std::sqrt(left * right);
          }
          if (groups == 0) continue;
          margin = std::min(margin, std::abs(sum / groups - kThresholds[level - 2]));
          if (sum / groups > kThresholds[level - 2]) cap = level;
        }
        ASSERT_GT(margin, 1e-5);  // the inputs decide, not rounding
        EXPECT_EQ(caps[1 + (b * heads + h) * blocks + block], cap);
        ++seen[cap];
      }
    }
  }
  EXPECT_GT(seen[1], 0);
  EXPECT_GT(seen[4], 0);
}

TEST(SimilarityRuleTest, TheCoarsestPassingTestCounts) {
  // Mean cosines: pairs -1, quadruples 0, octets 1.
  const std::vector<float> k{1, -1, 1, -1, 1, -1, -1, 1};
  const std::vector<int64_t> offsets{0, 8};
  uint8_t cap = 0;
  const auto run = [&](const std::vector<float>& values) {
    similarity_caps<float>(contiguous_view<const float>(values.data(), 8, 1, 1), offsets, 1, 1, 1,
                           kWidths, kThresholds, &cap, 1);
    return cap;
  };
  EXPECT_EQ(run(k), 4);
  EXPECT_EQ(run({1, 1, 1, 1, 1, 1, 1, -1}), 1);  // pairs .5, quadruples 0, octets -1
  EXPECT_EQ(run({1, 1, 1, 1, -1, -1, -1, -1}), 3);
  EXPECT_EQ(run({1, 1, -1, -1, 1, 1, -1, -1}), 2);
  EXPECT_EQ(run({0, 0, 0, 0, 0, 0, 0, 0}), 1);
  EXPECT_EQ(run({kNan, 1, 1, 1, 1, 1, 1, 1}), 1);
}

}  // namespace
}  // namespace sprocket::kernels
