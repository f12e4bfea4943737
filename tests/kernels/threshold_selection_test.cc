#include "kernels/threshold_selection.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <numeric>
#include <vector>

#include "base/error.h"
#include "base/philox.h"
#include "kernels/block_pooling.h"
#include "kernels/block_selection.h"

namespace sprocket::kernels {
namespace {

using testing::ElementsAre;
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

std::vector<int32_t> row_of(const SegmentTable& table, int64_t row) {
  return {table.kv_block.begin() + table.row_offsets[row],
          table.kv_block.begin() + table.row_offsets[row + 1]};
}

std::vector<int32_t> ids(int first, int last) {
  std::vector<int32_t> result(last - first);
  std::iota(result.begin(), result.end(), first);
  return result;
}

template <class A>
std::vector<A> normal_values(int64_t count, uint64_t sample, double factor = 1) {
  std::vector<float> values(count);
  RandomStream(5, 0, sample, RandomPurpose::kTest).normal(values);
  std::vector<A> result;
  for (float value : values) result.push_back(static_cast<A>(value * factor));
  return result;
}

ThresholdSpec value_rule(const char* sparsity) {
  ThresholdSpec spec;
  spec.rule = ThresholdRule::kValue;
  spec.sparsity = Decimal::parse(sparsity);
  return spec;
}
ThresholdSpec mass_rule(double tau, int min_blocks = 4) {
  ThresholdSpec spec;
  spec.rule = ThresholdRule::kMass;
  spec.tau = tau;
  spec.min_blocks = min_blocks;
  return spec;
}

// One row whose scores are given: head dimension 1, query mean 1.
template <class A>
std::vector<int32_t> select_row(const std::vector<double>& scores, const ThresholdSpec& spec) {
  const A one = 1;
  const std::vector<A> kc(scores.begin(), scores.end());
  return row_of(
      select_by_threshold(&one, kc.data(), 1, 1, 1, static_cast<int>(kc.size()), 1, 1.0, spec, 1),
      0);
}

// The video blocks that a row of video scores selects, written without regard to speed.
std::vector<int32_t> naive_row(const std::vector<double>& s, const ThresholdSpec& spec) {
  const int n = static_cast<int>(s.size());
  std::vector<int32_t> order = ids(0, n);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return s[a] > s[b]; });
  int count = 0;
  if (spec.rule == ThresholdRule::kValue) {
    const int k = selected_count(spec.sparsity, n);
    const double mean = std::accumulate(s.begin(), s.end(), 0.0) / n;
    double variance = 0;
    for (double score : s) variance += (score - mean) * (score - mean) / n;
    const double threshold =
        k == n ? -kInf : mean + std::sqrt(variance) * inverse_normal_cdf(1 - double(k) / n);
    for (double score : s) count += score >= threshold;
    count = std::max(count, std::min(n, spec.min_blocks_value));
  } else {
    double total = 0, mass = 0;
    for (double score : s) total += std::exp(score - s[order[0]]);
    while (count < n && (count < spec.min_blocks || mass < spec.tau || spec.tau == 1)) {
      mass += std::exp(s[order[count++]] - s[order[0]]) / total;
    }
  }
  order.resize(count);
  std::sort(order.begin(), order.end());
  return order;
}

TEST(InverseNormalCdfTest, KnownValues) {
  EXPECT_EQ(inverse_normal_cdf(0.5), 0);
  EXPECT_NEAR(inverse_normal_cdf(0.975), 1.959963984540054, 1e-14);
  EXPECT_NEAR(inverse_normal_cdf(0.9), 1.2815515655446004, 1e-14);
  EXPECT_NEAR(inverse_normal_cdf(0.999), 3.090232306167813, 1e-12);
  EXPECT_NEAR(inverse_normal_cdf(1e-10), -6.361340902404056, 1e-12);
  EXPECT_EQ(inverse_normal_cdf(0), -kInf);
  EXPECT_EQ(inverse_normal_cdf(1), kInf);
  EXPECT_THROW(inverse_normal_cdf(1.5), InternalError);
}

TEST(InverseNormalCdfTest, InvertsTheDistribution) {
  double former = -kInf;
  for (double p = 1e-300; p < 1e-3; p *= 1.7) {
    const double x = inverse_normal_cdf(p);
    EXPECT_GT(x, former);
    former = x;
    // An error of dx changes Phi by about p |x| dx.
    EXPECT_NEAR(std::erfc(-x / std::numbers::sqrt2) / 2, p, p * x * x * 1e-12) << p;
  }
  for (int i = 1; i < 1000; ++i) {
    const double p = i / 1000.0, x = inverse_normal_cdf(p);
    EXPECT_GT(x, former);
    former = x;
    EXPECT_NEAR(std::erfc(-x / std::numbers::sqrt2) / 2, p, 4e-16) << p;
    EXPECT_NEAR(inverse_normal_cdf(1 - p), -x, 1e-12);
  }
}

template <class A>
class ThresholdTest : public testing::Test {};
using ScoreTypes = testing::Types<double, float>;
TYPED_TEST_SUITE(ThresholdTest, ScoreTypes);

struct Case {
  int batch = 2, heads = 2, query_blocks = 0, kv_blocks = 0, head_dim = 16;
  double factor = 1;
};

TYPED_TEST(ThresholdTest, EqualsTheDefinition) {
  using A = TypeParam;
  std::vector<ThresholdSpec> specs{value_rule("0.9"),  value_rule("0.5"), value_rule("0.99"),
                                   value_rule("0"),    value_rule("1"),   mass_rule(0.9),
                                   mass_rule(0.5),     mass_rule(0.99),   mass_rule(0.999),
                                   mass_rule(0.01, 1), mass_rule(1),      mass_rule(0.9, 40)};
  specs[1].min_blocks_value = 60;
  int uneven = 0;
  for (const Case& c :
       {Case{2, 2, 100, 100, 16, 1}, Case{1, 2, 97, 230, 37, 3}, Case{1, 2, 20, 400, 8, 0.02},
        Case{1, 1, 3, 3, 8, 1}, Case{1, 1, 1, 1, 8, 1}}) {
    const int64_t bh = c.batch * c.heads;
    const auto qc = normal_values<A>(bh * c.query_blocks * c.head_dim, 1, c.factor);
    const auto kc = normal_values<A>(bh * c.kv_blocks * c.head_dim, 2);
    const double scale = 1 / std::sqrt(c.head_dim);
    std::vector<A> scores(bh * c.query_blocks * c.kv_blocks);
    coarse_scores(qc.data(), kc.data(), bh, c.query_blocks, c.kv_blocks, c.head_dim, scale,
                  scores.data(), 1);
    for (ThresholdSpec spec : specs) {
      for (const int prefix : {0, 1, 3}) {
        if (prefix > c.kv_blocks) continue;
        spec.prefix_blocks = prefix;
        const SegmentTable table =
            select_by_threshold(qc.data(), kc.data(), c.batch, c.heads, c.query_blocks, c.kv_blocks,
                                c.head_dim, scale, spec, 1);
        EXPECT_EQ(table, select_by_threshold(qc.data(), kc.data(), c.batch, c.heads, c.query_blocks,
                                             c.kv_blocks, c.head_dim, scale, spec, 3));
        size_t smallest = c.kv_blocks, largest = 0;
        for (int64_t row = 0; row < table.rows(); ++row) {
          std::vector<int32_t> expected = ids(0, prefix);
          if (row % c.query_blocks < prefix) {
            expected = ids(0, c.kv_blocks);
          } else if (prefix < c.kv_blocks) {
            const auto from = scores.begin() + row * c.kv_blocks;
            for (int32_t id : naive_row({from + prefix, from + c.kv_blocks}, spec)) {
              expected.push_back(id + prefix);
            }
            smallest = std::min(smallest, expected.size());
            largest = std::max(largest, expected.size());
          }
          ASSERT_EQ(row_of(table, row), expected) << "row " << row << " prefix " << prefix;
        }
        uneven += largest > smallest;
      }
    }
  }
  EXPECT_GT(uneven, 10);
}

TYPED_TEST(ThresholdTest, ARowDoesNotDependOnTheOthersOfTheCall) {
  using A = TypeParam;
  const int blocks = 211, dim = 24;
  const auto qc = normal_values<A>(blocks * dim, 3), kc = normal_values<A>(blocks * dim, 4);
  for (ThresholdSpec spec : {value_rule("0.9"), mass_rule(0.9)}) {
    spec.prefix_blocks = 5;
    const SegmentTable all =
        select_by_threshold(qc.data(), kc.data(), 1, 1, blocks, blocks, dim, 0.3, spec, 2);
    for (const auto& [first, last] : {std::pair{0, 3}, {2, 120}, {5, 6}, {90, 211}, {50, 50}}) {
      spec.first_query_block = first;
      const SegmentTable part = select_by_threshold(qc.data() + first * dim, kc.data(), 1, 1,
                                                    last - first, blocks, dim, 0.3, spec, 3);
      for (int row = first; row < last; ++row) {
        ASSERT_EQ(row_of(part, row - first), row_of(all, row));
      }
    }
  }
}

TYPED_TEST(ThresholdTest, ValueRuleOnEqualScoresKeepsAll) {
  using A = TypeParam;
  for (const double score : {0.1, 0.0, -7.3, 1e30}) {
    EXPECT_EQ(select_row<A>(std::vector<double>(50, score), value_rule("0.9")), ids(0, 50));
  }
}

TYPED_TEST(ThresholdTest, ValueRuleKeepsAtLeastTheBest) {
  using A = TypeParam;
  // 0 and 1 by halves: mean .5, std .5; PhiInv(.9) = 1.28 asks for 1.14, more than there is.
  std::vector<double> scores;
  for (int j = 0; j < 20; ++j) scores.push_back(j % 2);
  ThresholdSpec spec = value_rule("0.9");
  EXPECT_THAT(select_row<A>(scores, spec), ElementsAre(1));
  spec.min_blocks_value = 3;
  EXPECT_THAT(select_row<A>(scores, spec), ElementsAre(1, 3, 5));
  spec.min_blocks_value = 12;
  EXPECT_THAT(select_row<A>(scores, spec), ElementsAre(0, 1, 2, 3, 5, 7, 9, 11, 13, 15, 17, 19));
  spec.min_blocks_value = 20;
  EXPECT_EQ(select_row<A>(scores, spec), ids(0, 20));
  // PhiInv(1 - .2) = .84 asks for .92.
  EXPECT_THAT(select_row<A>(scores, value_rule("0.8")),
              ElementsAre(1, 3, 5, 7, 9, 11, 13, 15, 17, 19));
}

TYPED_TEST(ThresholdTest, MassRuleCountsSaturatedScoresExactly) {
  using A = TypeParam;
  // Ten blocks of mass .1 each; the others' underflows.
  std::vector<double> scores(40, -2000);
  for (int j = 0; j < 10; ++j) scores[4 * j + 1] = 500;
  for (int tenths = 4; tenths <= 9; ++tenths) {
    std::vector<int32_t> expected;
    for (int j = 0; j < tenths; ++j) expected.push_back(4 * j + 1);
    EXPECT_EQ(select_row<A>(scores, mass_rule(tenths / 10.0)), expected) << tenths;
  }
  EXPECT_EQ(select_row<A>(scores, mass_rule(1)), ids(0, 40));
  EXPECT_THAT(select_row<A>(scores, mass_rule(0.05, 1)), ElementsAre(1));
  std::vector<double> one_peak(30, 0);
  one_peak[17] = 400;
  EXPECT_THAT(select_row<A>(one_peak, mass_rule(0.9, 1)), ElementsAre(17));
  EXPECT_THAT(select_row<A>(one_peak, mass_rule(0.9)), ElementsAre(0, 1, 2, 17));
  EXPECT_EQ(select_row<A>(one_peak, mass_rule(0.9, 31)), ids(0, 30));
}

TEST(ThresholdSelectionTest, MassThatIsReachedExactlyIsEnough) {
  std::vector<double> scores(7, -std::log(4.0));  // three quarters of the mass on three blocks
  for (const int j : {1, 4, 5}) scores[j] = 0;
  EXPECT_THAT(select_row<double>(scores, mass_rule(0.75, 1)), ElementsAre(1, 4, 5));
}

TYPED_TEST(ThresholdTest, MassRuleOnEqualScores) {
  using A = TypeParam;
  for (const int blocks : {100, 640}) {  // .9 of them in exact arithmetic, the smaller ids
    EXPECT_EQ(select_row<A>(std::vector<double>(blocks, 0.3), mass_rule(0.9)),
              ids(0, blocks * 9 / 10));
  }
}

TYPED_TEST(ThresholdTest, NanAndInfinity) {
  using A = TypeParam;
  const std::vector<double> one_nan{1, 2, kNan, 4, 5, 4, 3, 2};
  EXPECT_THAT(select_row<A>(one_nan, value_rule("0.5")), ElementsAre(4));
  EXPECT_THAT(select_row<A>(one_nan, mass_rule(0.01, 7)), ElementsAre(0, 1, 3, 4, 5, 6, 7));
  EXPECT_THAT(select_row<A>(one_nan, mass_rule(0.6, 1)), ElementsAre(3, 4));
  const std::vector<double> low{-kInf, kNan, kNan, -kInf, kNan, kNan};
  EXPECT_THAT(select_row<A>(low, value_rule("0.5")), ElementsAre(0));
  EXPECT_THAT(select_row<A>(low, mass_rule(0.5, 1)), ElementsAre(0, 1, 3));
  const std::vector<double> high{0, kInf, 1, kInf, kNan, kInf, 2, kInf};
  EXPECT_THAT(select_row<A>(high, value_rule("0.5")), ElementsAre(1));
  EXPECT_THAT(select_row<A>(high, mass_rule(0.75, 1)), ElementsAre(1, 3, 5));
  EXPECT_THAT(select_row<A>(std::vector<double>(6, kNan), mass_rule(0.5, 2)), ElementsAre(0, 1, 2));
  EXPECT_THAT(select_row<A>(std::vector<double>(6, kNan), value_rule("0.5")), ElementsAre(0));
}

TEST(ThresholdSelectionTest, CallsWithoutRowsOrVideo) {
  const SegmentTable no_rows =
      select_by_threshold<float>(nullptr, nullptr, 2, 3, 0, 9, 4, 1.0, mass_rule(0.9), 2);
  EXPECT_THAT(no_rows.row_offsets, ElementsAre(0));
  const std::vector<float> means(3, 1.0f);
  for (ThresholdSpec spec : {mass_rule(0.9), value_rule("0.9")}) {
    spec.prefix_blocks = 3;
    spec.first_query_block = 7;
    const SegmentTable table =
        select_by_threshold(means.data(), means.data(), 1, 1, 2, 3, 1, 1.0, spec, 1);
    EXPECT_EQ(row_of(table, 0), ids(0, 3));
    EXPECT_EQ(row_of(table, 1), ids(0, 3));
    spec.prefix_blocks = 4;
    EXPECT_THROW(select_by_threshold(means.data(), means.data(), 1, 1, 2, 3, 1, 1.0, spec, 1),
                 InternalError);
  }
  EXPECT_THROW(select_by_threshold(means.data(), means.data(), 1, 1, 2, 3, 1, 1.0, mass_rule(0), 1),
               InternalError);
}

}  // namespace
}  // namespace sprocket::kernels
