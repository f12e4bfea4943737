// The test behind `sprocket profile compare`: how often it is wrong, and what it finds.
#include "runtime/profile/shift.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

#include <gtest/gtest.h>

namespace sprocket::profile {
namespace {

constexpr int kTrials = 2000;

// P(U <= k) by counting all ways to choose which of m + n values in order are the first sample's.
double below_by_counting(int m, int n, int k) {
  std::vector<bool> is_first(m + n, false);
  std::fill(is_first.end() - m, is_first.end(), true);
  double all = 0, few = 0;
  do {
    int u = 0;  // pairs with a value of the second below one of the first
    for (int i = 0; i < m + n; ++i) {
      for (int j = 0; j < i; ++j) u += is_first[i] && !is_first[j];
    }
    all += 1;
    few += u <= k;
  } while (std::next_permutation(is_first.begin(), is_first.end()));
  return few / all;
}

TEST(IntervalRank, IsTheLargestThatTheCountsAllow) {
  for (const double level : {0.2, 0.05, 0.01}) {
    for (int m = 1; m <= 6; ++m) {
      for (int n = 1; n <= 6; ++n) {
        const auto k = static_cast<int>(interval_rank(m, n, level));
        if (k > 0) {
          EXPECT_LE(2 * below_by_counting(m, n, k - 1), level + 1e-12) << m << ' ' << n;
        }
        EXPECT_GT(2 * below_by_counting(m, n, k), level - 1e-12) << m << ' ' << n;
      }
    }
  }
}

// Published critical values (two-sided, 0.05): the largest U that is refused.
TEST(IntervalRank, AgreesWithTables) {
  EXPECT_EQ(interval_rank(8, 8, 0.05), 13 + 1);
  EXPECT_EQ(interval_rank(10, 10, 0.05), 23 + 1);
  EXPECT_EQ(interval_rank(20, 20, 0.05), 127 + 1);
  EXPECT_EQ(interval_rank(5, 5, 0.01), 0 + 1);
  EXPECT_EQ(interval_rank(4, 5, 0.01), 0);
  EXPECT_EQ(interval_rank(10, 10, 0.01), 16 + 1);
}

TEST(IntervalRank, TheApproximationContinuesTheExactOne) {
  for (const double level : {0.05, 0.01, 0.001}) {
    const auto exact = static_cast<double>(interval_rank(50, 50, level));
    const auto above = static_cast<double>(interval_rank(50, 51, level));
    // As the mean and the deviation grow from 50 x 50 to 50 x 51.
    EXPECT_NEAR(above / exact, 51.0 / 50, 0.012) << level;
  }
}

TEST(LeastValues, AreThoseOfTheInterval) {
  EXPECT_EQ(least_values(0.05), 4);
  EXPECT_EQ(least_values(0.01), 5);
  EXPECT_EQ(least_values(0.001), 7);
}

TEST(ShiftOf, IsTheMedianOfTheDifferences) {
  const Shift shift = shift_of(std::vector<double>{1, 2, 10}, std::vector<double>{4, 5, 6}, 0.2);
  // -6 -5 -4 2 3 3 4 4 5
  EXPECT_EQ(shift.estimate, 3);
  EXPECT_EQ(interval_rank(3, 3, 0.2), 2);
  EXPECT_EQ(shift.low, -5);
  EXPECT_EQ(shift.high, 4);
  EXPECT_FALSE(shift.beyond_noise());
  EXPECT_EQ(shift.noise(), 4.5);
}

TEST(ShiftOf, TellsNothingOfTooFewValues) {
  const Shift shift = shift_of(std::vector<double>{1, 1, 1, 1}, std::vector<double>{9, 9}, 0.01);
  EXPECT_EQ(shift.estimate, 8);
  EXPECT_FALSE(shift.beyond_noise());
  EXPECT_TRUE(std::isinf(shift.noise()));
}

TEST(ShiftOf, EqualValuesHaveNoShiftAndNoNoise) {
  const std::vector<double> same(10, 0.25), other(10, 0.5);
  EXPECT_EQ(shift_of(same, same, 0.01).estimate, 0);
  EXPECT_FALSE(shift_of(same, same, 0.01).beyond_noise());
  EXPECT_TRUE(shift_of(same, other, 0.01).beyond_noise());
  EXPECT_EQ(shift_of(same, other, 0.01).noise(), 0);
}

TEST(ShiftOf, TurnsAroundWithItsSamples) {
  const std::vector<double> a{1, 7, 2, 9, 3, 8, 2.5}, b{2, 8.5, 3, 4, 11, 9, 2};
  const Shift there = shift_of(a, b, 0.05), back = shift_of(b, a, 0.05);
  EXPECT_EQ(there.estimate, -back.estimate);
  EXPECT_EQ(there.low, -back.high);
  EXPECT_EQ(there.high, -back.low);
}

TEST(ShiftOf, LongSamplesAreThinnedEvenly) {
  std::vector<double> a(5000), b(5000);
  for (size_t i = 0; i < a.size(); ++i) {
    a[i] = static_cast<double>(i % 100);
    b[i] = a[i] + 3;
  }
  EXPECT_NEAR(shift_of(a, b, 0.01).estimate, 3, 1e-9);
}

// Distributions that times of steps have, and worse.
enum class Kind { kNormal, kSkewed, kHeavy, kRounded };

double draw(Kind kind, std::mt19937_64& random) {
  std::normal_distribution<double> normal;
  switch (kind) {
    case Kind::kNormal:
      return 100 + normal(random);
    case Kind::kSkewed:
      return 100 + std::exp(normal(random));
    case Kind::kHeavy:  // one step in ten is disturbed by much
      return 100 + normal(random) + (random() % 10 == 0 ? 50 : 0);
    case Kind::kRounded:
      return std::round(normal(random));
  }
  return 0;
}

std::vector<double> sample(Kind kind, int size, double shift, std::mt19937_64& random) {
  std::vector<double> values;
  for (int i = 0; i < size; ++i) values.push_back(draw(kind, random) + shift);
  return values;
}

// Share of the trials in which a shift was found; and of those where the interval holds it.
struct Found {
  double alarms = 0, held = 0;
};

Found trials(Kind kind, int m, int n, double shift, double level) {
  std::mt19937_64 random(1000 * m + n);
  Found found;
  for (int i = 0; i < kTrials; ++i) {
    const std::vector<double> a = sample(kind, m, 0, random);
    const Shift s = shift_of(a, sample(kind, n, shift, random), level);
    found.alarms += s.beyond_noise();
    found.held += s.low <= shift && shift <= s.high;
  }
  return {found.alarms / kTrials, found.held / kTrials};
}

TEST(ShiftOf, RaisesFalseAlarmsNoMoreOftenThanStated) {
  for (const Kind kind : {Kind::kNormal, Kind::kSkewed, Kind::kHeavy, Kind::kRounded}) {
    for (const double level : {0.05, 0.01}) {
      for (const auto& [m, n] : {std::pair(5, 5), {10, 10}, {7, 20}, {30, 30}}) {
        // Three deviations of the count above the level itself.
        const double most = level + 3 * std::sqrt(level * (1 - level) / kTrials);
        const Found same = trials(kind, m, n, 0, level);
        EXPECT_LE(same.alarms, most) << static_cast<int>(kind) << ' ' << m << ' ' << n;
        EXPECT_GE(same.held, 1 - most) << static_cast<int>(kind) << ' ' << m << ' ' << n;
      }
    }
  }
}

// Of values without ties the level is used up, as far as the steps of U allow.
TEST(ShiftOf, IsNotMoreCarefulThanItHasToBe) {
  EXPECT_GE(trials(Kind::kNormal, 10, 10, 0, 0.05).alarms, 0.03);
  EXPECT_GE(trials(Kind::kSkewed, 30, 30, 0, 0.05).alarms, 0.035);
}

TEST(ShiftOf, FindsWhatIsThere) {
  // In units of the deviation: two of them in ten steps, one in thirty. Of normal values, for which
  // nothing is better than the t-test, that one finds .93 and .88; here they are .90 and .84.
  EXPECT_GE(trials(Kind::kNormal, 10, 10, 2, 0.01).alarms, 0.87);
  EXPECT_GE(trials(Kind::kNormal, 30, 30, 1, 0.01).alarms, 0.8);
  EXPECT_GE(trials(Kind::kNormal, 10, 10, -3, 0.01).alarms, 0.99);
  // Disturbed steps hide it from a mean, whose own deviation they make 15.
  EXPECT_GE(trials(Kind::kHeavy, 20, 20, 2, 0.01).alarms, 0.9);
  EXPECT_GE(trials(Kind::kHeavy, 20, 20, 2, 0.01).held, 0.98);
}

}  // namespace
}  // namespace sprocket::profile
