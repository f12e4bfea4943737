#include "kernels/block_selection.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "base/philox.h"
#include "kernels/isa.h"

namespace sprocket::kernels {
namespace {

using testing::ElementsAre;
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::vector<float> normal_scores(int64_t count, uint64_t sample) {
  std::vector<float> values(count);
  RandomStream(3, 0, sample, RandomPurpose::kTest).normal(values);
  return values;
}

TEST(SelectedCountTest, IsExactInDecimal) {
  const auto count = [](const char* sparsity, int blocks) {
    return selected_count(Decimal::parse(sparsity), blocks);
  };
  EXPECT_EQ(count("0.95", 20), 1);
  EXPECT_EQ(count("0.85", 20), 3);
  EXPECT_EQ(count("0.9", 10), 1);
  EXPECT_EQ(count("0.9", 624), 63);
  EXPECT_EQ(count("0.9", 11), 2);
  EXPECT_EQ(count("0", 7), 7);
  EXPECT_EQ(count("1", 7), 1);
  EXPECT_EQ(count("0.5", 1), 1);
  EXPECT_EQ(count("0.5", 0), 0);
  EXPECT_EQ(selected_count(Decimal::from_double(0.95), 20), 1);
}

template <class A>
class RowSelectorTest : public testing::Test {};
using ScoreTypes = testing::Types<float, double>;
TYPED_TEST_SUITE(RowSelectorTest, ScoreTypes);

// Every count of a row, against a stable sort, with guards around the result.
template <class A>
void expect_all_counts(const std::vector<A>& scores) {
  const int64_t size = static_cast<int64_t>(scores.size());
  std::vector<int32_t> order(size);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
    return std::isnan(scores[b]) ? !std::isnan(scores[a]) : scores[a] > scores[b];
  });
  RowSelector<A> selector;
  for (int64_t count = 0; count <= size; count += size > 100 && count > 3 ? 37 : 1) {
    std::vector<int32_t> expected(order.begin(), order.begin() + count);
    std::sort(expected.begin(), expected.end());
    std::vector<int32_t> guarded(count + 8, -9);
    selector.select(scores.data(), size, count, guarded.data() + 4);
    const auto begin = guarded.begin() + 4;
    ASSERT_EQ(std::vector<int32_t>(begin, begin + count), expected) << size << " " << count;
    for (int i = 0; i < 4; ++i) ASSERT_TRUE(guarded[i] == -9 && guarded[4 + count + i] == -9);
  }
}

TYPED_TEST(RowSelectorTest, EqualsAStableSort) {
  using A = TypeParam;
  constexpr A kInfinity = std::numeric_limits<A>::infinity();
  constexpr A kTiny = std::numeric_limits<A>::denorm_min();
  const A extremes[] = {A(kNan),
                        kInfinity,
                        -kInfinity,
                        A(0),
                        -A(0),
                        kTiny,
                        -kTiny,
                        A(1),
                        A(-1),
                        -A(kNan),
                        std::numeric_limits<A>::max(),
                        std::numeric_limits<A>::lowest()};
  for (const Isa isa : {Isa::kBaseline, Isa::kAvx2, Isa::kAvx512}) {
    limit_isa(isa);
    for (const int size : {1, 2, 7, 8, 15, 16, 17, 33, 64, 67, 500}) {
      const auto values = normal_scores(size, size);
      std::vector<A> scores(values.begin(), values.end());
      expect_all_counts(scores);
      for (A& score : scores) score = std::round(score * 2) / 2;
      expect_all_counts(scores);
      for (int i = 0; i < size; ++i) scores[i] = extremes[(i * 7 + i / 12) % 12];
      expect_all_counts(scores);
      expect_all_counts(std::vector<A>(size, A(0.25)));
      expect_all_counts(std::vector<A>(size, A(kNan)));
    }
  }
  limit_isa(Isa::kAvx512);
}

std::vector<int32_t> best_of(const std::vector<float>& scores, int64_t count) {
  std::vector<int32_t> positions(count);
  RowSelector<float>().select(scores.data(), static_cast<int64_t>(scores.size()), count,
                              positions.data());
  return positions;
}

TEST(RowSelectorRuleTest, TiesGoToTheSmallerBlock) {
  EXPECT_THAT(best_of({1, 3, 3, 0, 3, 1}, 2), ElementsAre(1, 2));
  EXPECT_THAT(best_of({0.0f, -0.0f, -1, 0.0f, -0.0f, -2}, 2), ElementsAre(0, 1));
}

TEST(RowSelectorRuleTest, NanIsTheSmallestScore) {
  const float low = -std::numeric_limits<float>::infinity();
  const std::vector<float> scores{kNan, low, -kNan, -5, kNan, 2};
  EXPECT_THAT(best_of(scores, 3), ElementsAre(1, 3, 5));
  EXPECT_THAT(best_of(scores, 4), ElementsAre(0, 1, 3, 5));
}

}  // namespace
}  // namespace sprocket::kernels
