#include "kernels/block_selection.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <set>

#include "base/error.h"
#include "base/philox.h"
#include "kernels/block_pooling.h"
#include "kernels/isa.h"

namespace sprocket::kernels {
namespace {

using testing::ElementsAre;
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::vector<int32_t> row_of(const SegmentTable& table, int64_t row) {
  return {table.kv_block.begin() + table.row_offsets[row],
          table.kv_block.begin() + table.row_offsets[row + 1]};
}

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

TEST(SelectTopKTest, TiesGoToTheSmallerBlock) {
  const std::vector<float> scores{1,    3,     3,  0,    3,     1,  //
                                  0.0f, -0.0f, -1, 0.0f, -0.0f, -2};
  const SegmentTable table = select_top_k(scores.data(), 1, 1, 2, 6, 2, 1);
  EXPECT_THAT(row_of(table, 0), ElementsAre(1, 2));
  EXPECT_THAT(row_of(table, 1), ElementsAre(0, 1));
}

TEST(SelectTopKTest, NanIsTheSmallestScore) {
  const float low = -std::numeric_limits<float>::infinity();
  const std::vector<float> scores{kNan, low, -kNan, -5, kNan, 2};
  EXPECT_THAT(row_of(select_top_k(scores.data(), 1, 1, 1, 6, 3, 1), 0), ElementsAre(1, 3, 5));
  EXPECT_THAT(row_of(select_top_k(scores.data(), 1, 1, 1, 6, 4, 1), 0), ElementsAre(0, 1, 3, 5));
}

template <class A>
class TopKTest : public testing::Test {};
TYPED_TEST_SUITE(TopKTest, ScoreTypes);

TYPED_TEST(TopKTest, EqualsASortOfEveryRow) {
  const int batch = 2, heads = 3, rows = 5, blocks = 67;
  const auto values = normal_scores(batch * heads * rows * blocks, 1);
  std::vector<TypeParam> scores(values.begin(), values.end());
  for (TypeParam& score : scores) score = std::round(score * 4) / 4;  // many ties
  for (const int k : {1, 7, 66, 67}) {
    const SegmentTable table = select_top_k(scores.data(), batch, heads, rows, blocks, k, 1);
    EXPECT_EQ(table, select_top_k(scores.data(), batch, heads, rows, blocks, k, 3));
    for (int64_t row = 0; row < batch * heads * rows; ++row) {
      const TypeParam* s = scores.data() + row * blocks;
      std::vector<int32_t> order(blocks);
      std::iota(order.begin(), order.end(), 0);
      std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return s[a] > s[b]; });
      order.resize(k);
      std::sort(order.begin(), order.end());
      ASSERT_EQ(row_of(table, row), order);
    }
  }
}

TEST(SelectTopKTest, NoRowsGiveAnEmptyTable) {
  const SegmentTable table = select_top_k<float>(nullptr, 2, 3, 0, 9, 4, 1);
  EXPECT_THAT(table.row_offsets, ElementsAre(0));
  EXPECT_EQ(table.rows(), 0);
}

TEST(SelectTopKTest, ACountOutOfRangeIsABug) {
  const std::vector<float> scores(4);
  EXPECT_THROW(select_top_k(scores.data(), 1, 1, 1, 4, 5, 1), InternalError);
  EXPECT_THROW(select_top_k(scores.data(), 1, 1, 1, 4, 0, 1), InternalError);
}

struct Problem {
  int batch = 2, heads = 4, blocks = 0, k = 3;
  DomainBudget budget;
  std::vector<float> scores, probabilities;  // of all blocks

  Problem(std::vector<int32_t> first_block, const char* coverage, int head_group, int chosen)
      : blocks(first_block.back()), k(chosen) {
    budget = {std::move(first_block), Decimal::parse(coverage), head_group};
    scores = normal_scores(static_cast<int64_t>(batch) * heads * blocks * blocks, blocks);
    for (float& score : scores) score = std::round(score * 8) / 8;
    probabilities = scores;
    coarse_softmax(probabilities.data(), static_cast<int64_t>(batch) * heads * blocks, blocks, 1);
  }

  // Rows of query blocks [first, first + count), as a rank would hold them.
  static std::vector<float> rows(const Problem& p, const std::vector<float>& all, int first,
                                 int count) {
    std::vector<float> part;
    for (int bh = 0; bh < p.batch * p.heads; ++bh) {
      const auto begin = all.begin() + (static_cast<int64_t>(bh) * p.blocks + first) * p.blocks;
      part.insert(part.end(), begin, begin + static_cast<int64_t>(count) * p.blocks);
    }
    return part;
  }

  SegmentTable select(int first, int count, int threads = 1) const {
    const auto s = rows(*this, scores, first, count), p = rows(*this, probabilities, first, count);
    return select_with_budget(s.data(), p.data(), batch, heads, first, count, blocks, k, budget,
                              threads);
  }
  SegmentTable plain() const {
    return select_top_k(scores.data(), batch, heads, blocks, blocks, k, 1);
  }
};

// The rule word by word, with sets and sorts.
std::map<int64_t, std::vector<int32_t>> reference_rows(const Problem& p) {
  const auto row_index = [&](int b, int h, int q) {
    return (static_cast<int64_t>(b) * p.heads + h) * p.blocks + q;
  };
  const SegmentTable plain = p.plain();
  const int group = p.budget.head_group == 0 ? p.heads : p.budget.head_group;
  std::map<int64_t, std::vector<int32_t>> result;
  for (int b = 0; b < p.batch; ++b) {
    for (size_t g = 0; g + 1 < p.budget.first_block.size(); ++g) {
      const int first = p.budget.first_block[g], last = p.budget.first_block[g + 1];
      std::set<std::pair<int, int>> imports;
      for (int first_head = 0; first_head < p.heads; first_head += group) {
        std::vector<std::tuple<float, int, int>> pairs;  // (-mass, h, j)
        for (int h = first_head; h < first_head + group; ++h) {
          for (int j = 0; j < p.blocks; ++j) {
            if (j >= first && j < last) continue;
            float mass = 0;
            for (int q = first; q < last; ++q) {
              const auto row = row_of(plain, row_index(b, h, q));
              if (std::binary_search(row.begin(), row.end(), j)) {
                mass += p.probabilities[row_index(b, h, q) * p.blocks + j];
              }
            }
            pairs.emplace_back(-mass, h, j);
          }
        }
        std::sort(pairs.begin(), pairs.end());
        pairs.resize(p.budget.max_coverage.floor_times(static_cast<int64_t>(pairs.size())));
        for (const auto& [mass, h, j] : pairs) imports.emplace(h, j);
      }
      for (int h = 0; h < p.heads; ++h) {
        for (int q = first; q < last; ++q) {
          std::vector<std::pair<float, int>> candidates;  // (-score, j)
          for (int j = 0; j < p.blocks; ++j) {
            if ((j >= first && j < last) || imports.contains({h, j})) {
              candidates.emplace_back(-p.scores[row_index(b, h, q) * p.blocks + j], j);
            }
          }
          std::sort(candidates.begin(), candidates.end());
          if (static_cast<int>(candidates.size()) > p.k) candidates.resize(p.k);
          auto& row = result[row_index(b, h, q)];
          for (const auto& candidate : candidates) row.push_back(candidate.second);
          std::sort(row.begin(), row.end());
        }
      }
    }
  }
  return result;
}

class BudgetTest : public testing::TestWithParam<const char*> {};

TEST_P(BudgetTest, EqualsTheRuleWrittenOut) {
  for (const auto& first_block : std::vector<std::vector<int32_t>>{
           {0, 7, 12, 20, 27}, {0, 0, 9, 9, 10, 24, 24}, {0, 1, 2, 3, 4, 5}, {0, 30, 33}}) {
    for (const int head_group : {0, 1, 2}) {
      const Problem problem(first_block, GetParam(), head_group, 4);
      const SegmentTable table = problem.select(0, problem.blocks);
      const auto expected = reference_rows(problem);
      ASSERT_EQ(table.rows(), static_cast<int64_t>(expected.size()));
      for (const auto& [row, blocks] : expected) ASSERT_EQ(row_of(table, row), blocks) << row;
      EXPECT_EQ(table, problem.select(0, problem.blocks, 3));
    }
  }
}

TEST_P(BudgetTest, DoesNotDependOnHowDomainsAreHeld) {
  const Problem problem({0, 6, 6, 11, 19, 26}, GetParam(), 2, 5);
  const SegmentTable whole = problem.select(0, 26);
  for (const auto& cuts : std::vector<std::vector<int>>{
           {0, 6, 11, 19, 26}, {0, 11, 26}, {0, 6, 26}, {0, 19, 19, 26}}) {
    for (size_t part = 0; part + 1 < cuts.size(); ++part) {
      const int first = cuts[part], count = cuts[part + 1] - first;
      const SegmentTable table = problem.select(first, count);
      for (int bh = 0; bh < problem.batch * problem.heads; ++bh) {
        for (int q = 0; q < count; ++q) {
          ASSERT_EQ(row_of(table, static_cast<int64_t>(bh) * count + q),
                    row_of(whole, static_cast<int64_t>(bh) * 26 + first + q));
        }
      }
    }
  }
}

TEST_P(BudgetTest, ADomainNeedsNoMorePairsThanItsBudget) {
  const Problem problem({0, 8, 16, 24, 32}, GetParam(), 0, 6);
  const SegmentTable table = problem.select(0, 32);
  for (int b = 0; b < problem.batch; ++b) {
    for (int g = 0; g < 4; ++g) {
      std::set<std::pair<int, int>> needed;
      for (int h = 0; h < problem.heads; ++h) {
        for (int q = 8 * g; q < 8 * g + 8; ++q) {
          for (const int j : row_of(table, (b * problem.heads + h) * 32 + q)) {
            if (j < 8 * g || j >= 8 * g + 8) needed.emplace(h, j);
          }
        }
      }
      EXPECT_LE(static_cast<int64_t>(needed.size()),
                problem.budget.max_coverage.floor_times(problem.heads * 24));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Coverages, BudgetTest, testing::Values("0", "0.1", "0.25", "0.5", "0.99"));

TEST(BudgetLimitsTest, FullCoverageAndOneDomainAreThePlainRule) {
  const Problem full({0, 5, 13, 20}, "1", 0, 4);
  EXPECT_EQ(full.select(0, 20), full.plain());
  const Problem one({0, 0, 20, 20}, "0.1", 0, 4);
  EXPECT_EQ(one.select(0, 20), one.plain());
}

TEST(BudgetLimitsTest, ABudgetAboveTheNaturalCoverageChangesNothing) {
  Problem problem({0, 10, 20, 30}, "0.5", 0, 2);
  for (int64_t row = 0; row < problem.batch * problem.heads * 30; ++row) {
    for (int j = 12; j < 18; ++j) problem.scores[row * 30 + j] += 100;
  }
  problem.probabilities = problem.scores;
  coarse_softmax(problem.probabilities.data(), problem.batch * problem.heads * 30, 30, 1);
  EXPECT_EQ(problem.select(0, 30), problem.plain());
}

TEST(BudgetLimitsTest, WithoutImportsASmallDomainGivesShortRows) {
  const Problem problem({0, 2, 12}, "0", 0, 5);
  const SegmentTable table = problem.select(0, 12);
  EXPECT_THAT(row_of(table, 0), ElementsAre(0, 1));
  EXPECT_THAT(row_of(table, 2), testing::SizeIs(5));
}

TEST(BudgetLimitsTest, NanScoresGiveAWellFormedTable) {
  Problem problem({0, 4, 8}, "0.25", 0, 3);
  for (float& score : problem.scores) score = kNan;
  problem.probabilities = problem.scores;
  const SegmentTable table = problem.select(0, 8);
  for (int64_t row = 0; row < table.rows(); ++row)
    EXPECT_THAT(row_of(table, row), testing::SizeIs(3));
}

TEST(BudgetLimitsTest, ACutDomainOrGroupIsABug) {
  Problem problem({0, 4, 8}, "0.25", 0, 3);
  EXPECT_THROW(problem.select(0, 6), InternalError);
  EXPECT_THROW(problem.select(2, 6), InternalError);
  problem.budget.head_group = 3;
  EXPECT_THROW(problem.select(0, 8), InternalError);
  problem.budget = {{0, 4, 7}, Decimal::parse("0.5"), 0};
  EXPECT_THROW(problem.select(0, 8), InternalError);
}

}  // namespace
}  // namespace sprocket::kernels
