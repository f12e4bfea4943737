#include "kernels/coarse_attention.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "base/error.h"
#include "base/philox.h"
#include "kernels/coarse_attention_rows.h"
#include "kernels/isa.h"

namespace sprocket::kernels {
namespace {

using Row = std::vector<int32_t>;

template <class A>
constexpr double kUnit = std::is_same_v<A, double> ? 0x1p-53 : 0x1p-24;

struct IsaLimit {
  explicit IsaLimit(Isa isa) { limit_isa(isa); }
  ~IsaLimit() { limit_isa(Isa::kAvx512); }
};

template <class A>
std::vector<A> normal_values(int64_t count, uint64_t sample) {
  std::vector<float> values(count);
  RandomStream(11, 0, sample, RandomPurpose::kTest).normal(values);
  return {values.begin(), values.end()};
}

// Multiples of 1/2: their products and sums are exact in any order, and many are equal.
template <class A>
std::vector<A> coarse_values(int64_t count, uint64_t sample) {
  std::vector<A> values = normal_values<A>(count, sample);
  for (A& value : values) value = std::round(value * 2) / 2;
  return values;
}

// An output between guard bytes that nothing may touch.
template <class A>
class Guarded {
 public:
  explicit Guarded(int64_t count) : count_(count), data_(count + 2 * kGuard, A(-77)) {}
  ~Guarded() {
    for (int64_t i = 0; i < kGuard; ++i) {
      EXPECT_EQ(data_[i], A(-77));
      EXPECT_EQ(data_[kGuard + count_ + i], A(-77));
    }
  }
  A* get() { return data_.data() + kGuard; }
  std::vector<A> values() const {
    return {data_.begin() + kGuard, data_.begin() + kGuard + count_};
  }

 private:
  static constexpr int64_t kGuard = 32;
  int64_t count_;
  std::vector<A> data_;
};

// Inputs of all blocks; calls may hold a part of the query blocks.
template <class A>
struct Inputs {
  int batch = 2, heads = 3, blocks = 0, dim = 8;
  int prefix = 0, k = 1;
  PrefixRule rule = PrefixRule::kExempt;
  double scale = 0.5;
  std::vector<A> q, k_means, v, q_parts, k_parts;
  int q_part_count = 0, k_part_count = 0;  // 0: no sub-blocks
  std::vector<int32_t> q_counts, k_counts;
  std::optional<DomainBudget> budget;

  Inputs(int blocks, int prefix, int k, bool exact, int dim = 8)
      : blocks(blocks), dim(dim), prefix(prefix), k(k) {
    const int64_t count = int64_t{batch} * heads * blocks * dim;
    const auto make = [&](uint64_t sample) {
      return exact ? coarse_values<A>(count, sample) : normal_values<A>(count, sample);
    };
    q = make(1), k_means = make(2), v = make(3);
  }
  void add_parts(int q_parts_of_block, int k_parts_of_block) {
    q_part_count = q_parts_of_block, k_part_count = k_parts_of_block;
    const int64_t count = int64_t{batch} * heads * blocks * dim;
    q_parts = normal_values<A>(count * std::max(1, q_part_count), 4);
    k_parts = normal_values<A>(count * std::max(1, k_part_count), 5);
    for (int i = 0; i < blocks; ++i) {
      q_counts.push_back(q_part_count - (i % 5 == 4 ? std::min(i % 3, q_part_count - 1) : 0));
      k_counts.push_back(k_part_count - (i % 4 == 2 ? std::min(i % 3, k_part_count - 1) : 0));
    }
  }
  int bh() const { return batch * heads; }

  // Rows of query blocks [first, first + count).
  std::vector<A> rows(const std::vector<A>& all, int first, int count, int64_t width) const {
    std::vector<A> part;
    for (int h = 0; h < bh(); ++h) {
      const auto begin = all.begin() + (int64_t{h} * blocks + first) * width;
      part.insert(part.end(), begin, begin + count * width);
    }
    return part;
  }
};

// One call's copies of its rows.
template <class A>
struct Call {
  std::vector<A> q, q_parts;
  std::vector<int32_t> q_counts;
  CoarseProblem<A> problem;

  Call(const Inputs<A>& in, int first, int count, int threads = 1)
      : q(in.rows(in.q, first, count, in.dim)) {
    problem = {in.batch,  in.heads,          count,       in.blocks, in.dim, in.scale,
               q.data(),  in.k_means.data(), in.v.data(), {},        {},     first,
               in.prefix, in.rule,           threads};
    if (in.q_part_count > 0) {
      q_parts = in.rows(in.q_parts, first, count, int64_t{in.q_part_count} * in.dim);
      q_counts.assign(in.q_counts.begin() + first, in.q_counts.begin() + first + count);
      problem.q_sub = {in.q_part_count, q_parts.data(), q_counts};
    }
    if (in.k_part_count > 0) problem.k_sub = {in.k_part_count, in.k_parts.data(), in.k_counts};
  }
  int64_t size() const { return static_cast<int64_t>(q.size()); }
};

template <class A>
struct Result {
  SegmentTable table;
  std::vector<A> out;
};

// With a budget of the flat form, whose masses no call needs of another.
template <class A>
SegmentTable select(const Inputs<A>& in, const CoarseProblem<A>& problem, A* out) {
  if (!in.budget) return select_and_attend(problem, in.k, out);
  const int first = problem.first_query_block, last = first + problem.query_blocks;
  HeldDomains held;
  for (int g = 0; g < in.budget->domains(); ++g) {
    held.first += in.budget->first_block[g + 1] <= first;
    held.last += in.budget->first_block[g] < last;
  }
  held.last = std::max(held.first, held.last);
  const auto selection = budgeted_selection(problem, in.k, *in.budget, held, out);
  const DomainMasses<A> masses = selection->masses();
  return selection->select(choose_imports(*in.budget, held, masses, problem.threads));
}

template <class A>
Result<A> run(const Inputs<A>& in, int first, int count, int threads = 1) {
  const Call<A> call(in, first, count, threads);
  Guarded<A> out(call.size()), alone(call.size());
  Result<A> result{select(in, call.problem, out.get()), out.values()};
  EXPECT_EQ(select<A>(in, call.problem, nullptr), result.table);
  coarse_attend(call.problem, alone.get());
  EXPECT_EQ(std::memcmp(alone.get(), out.get(), call.size() * sizeof(A)), 0);
  return result;
}

template <class A>
Row row_of(const Result<A>& result, int64_t row) {
  return {result.table.kv_block.begin() + result.table.row_offsets[row],
          result.table.kv_block.begin() + result.table.row_offsets[row + 1]};
}

// The rules, written with sorts and sets over whole score matrices.
template <class A>
class Naive {
 public:
  explicit Naive(const Inputs<A>& in) : in_(in) {
    const int64_t n = in.blocks;
    coarse_.resize(in.bh() * n * n);
    for (int h = 0; h < in.bh(); ++h) {
      for (int64_t i = 0; i < n; ++i) {
        for (int64_t j = 0; j < n; ++j) {
          coarse_[(h * n + i) * n + j] = static_cast<A>(
              in.scale * dot(&in.q[(h * n + i) * in.dim], &in.k_means[(h * n + j) * in.dim]));
        }
      }
    }
    selecting_ = coarse_;
    if (in.q_part_count + in.k_part_count > 0) add_part_scores();
  }

  std::vector<A>& selecting() { return selecting_; }

  std::vector<Row> rows() const {
    const int64_t n = in_.blocks;
    std::vector<Row> result = plain_rows();
    if (!in_.budget) return result;
    std::vector<A> p = coarse_;
    for (int64_t row = 0; row < in_.bh() * n; ++row) {
      run_on_isa<internal::RowSoftmaxKernel<A>>(p.data() + row * n, n,
                                                static_cast<internal::SoftmaxRow<A>*>(nullptr));
    }
    const DomainBudget& budget = *in_.budget;
    const int group = budget.head_group == 0 ? in_.heads : budget.head_group;
    for (size_t g = 0; g + 1 < budget.first_block.size(); ++g) {
      const int first = budget.first_block[g], last = budget.first_block[g + 1];
      for (int head = 0; head < in_.bh(); head += group) {
        std::vector<std::tuple<A, int, int>> pairs;  // (-mass, h, j)
        for (int h = head; h < head + group; ++h) {
          for (int j = in_.prefix; j < n; ++j) {
            if (j >= first && j < last) continue;
            A mass = 0;
            for (int64_t i = first; i < last; ++i) {
              const Row& row = result[h * n + i];
              if (std::binary_search(row.begin(), row.end(), j)) mass += p[(h * n + i) * n + j];
            }
            pairs.emplace_back(-mass, h, j);
          }
        }
        std::sort(pairs.begin(), pairs.end());
        pairs.resize(budget.max_coverage[0].floor_times(static_cast<int64_t>(pairs.size())));
        std::set<std::pair<int, int>> imports;
        for (const auto& [mass, h, j] : pairs) imports.emplace(h, j);
        for (int h = head; h < head + group; ++h) {
          for (int64_t i = first; i < last; ++i) {
            Row allowed;
            for (int j = 0; j < n; ++j) {
              const bool own = j >= first && j < last;
              if (j < in_.prefix || own || imports.contains({h, j})) allowed.push_back(j);
            }
            result[h * n + i] = choose(h * n + i, allowed);
          }
        }
      }
    }
    return result;
  }

  std::vector<Row> plain_rows() const {
    Row all(in_.blocks);
    std::iota(all.begin(), all.end(), 0);
    std::vector<Row> result;
    for (int64_t row = 0; row < int64_t{in_.bh()} * in_.blocks; ++row) {
      result.push_back(row % in_.blocks < in_.prefix ? all : choose(row, all));
    }
    return result;
  }

 private:
  double dot(const A* x, const A* y) const {
    double sum = 0;
    for (int d = 0; d < in_.dim; ++d) sum += static_cast<double>(x[d]) * y[d];
    return sum;
  }

  void add_part_scores() {
    const int64_t n = in_.blocks;
    for (int64_t r = 0; r < in_.bh() * n; ++r) {
      for (int64_t j = 0; j < n; ++j) {
        const int64_t key = r / n * n + j;
        const bool q_has = in_.q_part_count > 0, k_has = in_.k_part_count > 0;
        double sum = 0;
        for (int a = 0; a < (q_has ? in_.q_counts[r % n] : 1); ++a) {
          for (int b = 0; b < (k_has ? in_.k_counts[j] : 1); ++b) {
            const A* x =
                q_has ? &in_.q_parts[(r * in_.q_part_count + a) * in_.dim] : &in_.q[r * in_.dim];
            const A* y = k_has ? &in_.k_parts[(key * in_.k_part_count + b) * in_.dim]
                               : &in_.k_means[key * in_.dim];
            sum += std::exp(in_.scale * dot(x, y));
          }
        }
        selecting_[r * n + j] = static_cast<A>(std::log(sum));
      }
    }
  }

  // The row's blocks out of `allowed`, an ascending list.
  Row choose(int64_t row, const Row& allowed) const {
    const A* s = selecting_.data() + row * in_.blocks;
    Row chosen, others;
    for (const int32_t j : allowed) {
      (in_.rule == PrefixRule::kExempt && j < in_.prefix ? chosen : others).push_back(j);
    }
    std::stable_sort(others.begin(), others.end(), [&](int a, int b) {
      return std::isnan(s[b]) ? !std::isnan(s[a]) : s[a] > s[b];
    });
    const size_t count = in_.k + (in_.rule == PrefixRule::kExempt ? 0 : in_.prefix);
    others.resize(std::min(others.size(), count));
    chosen.insert(chosen.end(), others.begin(), others.end());
    std::sort(chosen.begin(), chosen.end());
    return chosen;
  }

  const Inputs<A>& in_;
  std::vector<A> coarse_, selecting_;
};

template <class A>
void expect_rows(const Result<A>& result, const std::vector<Row>& expected) {
  ASSERT_EQ(result.table.rows(), static_cast<int64_t>(expected.size()));
  ASSERT_EQ(result.table.row_offsets.back(), static_cast<int64_t>(result.table.kv_block.size()));
  for (size_t row = 0; row < expected.size(); ++row) {
    ASSERT_EQ(row_of(result, static_cast<int64_t>(row)), expected[row]) << row;
  }
}

// A call that holds query blocks [first, first + count) gives what the whole gives, bit for bit.
template <class A>
void expect_part(const Inputs<A>& in, const Result<A>& whole, int first, int count, int threads) {
  const Result<A> part = run(in, first, count, threads);
  for (int h = 0; h < in.bh(); ++h) {
    for (int i = 0; i < count; ++i) {
      ASSERT_EQ(row_of(part, int64_t{h} * count + i),
                row_of(whole, int64_t{h} * in.blocks + first + i));
    }
  }
  ASSERT_EQ(part.out, in.rows(whole.out, first, count, in.dim));
}

template <class A>
class CoarseAttentionTest : public testing::Test {};
using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(CoarseAttentionTest, Types);

TYPED_TEST(CoarseAttentionTest, SelectsAsWrittenOutUnderBothPrefixRules) {
  for (const auto& [blocks, prefix] :
       std::vector<std::pair<int, int>>{{1, 0}, {1, 1}, {37, 0}, {37, 5}, {70, 69}, {9, 9}}) {
    const int video = blocks - prefix;
    for (const int k : std::set<int>{std::min(1, video), std::min(7, video), video}) {
      for (const PrefixRule rule : {PrefixRule::kExempt, PrefixRule::kCompete}) {
        Inputs<TypeParam> in(blocks, prefix, k, true);
        in.rule = rule;
        const auto expected = Naive(in).rows();
        for (const Isa isa : {Isa::kBaseline, Isa::kAvx2, Isa::kAvx512}) {
          const IsaLimit limit(isa);
          expect_rows(run(in, 0, blocks), expected);
        }
      }
    }
  }
}

TYPED_TEST(CoarseAttentionTest, EqualScoresGoToTheSmallerBlocks) {
  Inputs<TypeParam> in(20, 3, 4, true);
  std::fill(in.q.begin(), in.q.end(), TypeParam(0));
  const Result<TypeParam> exempt = run(in, 0, 20);
  EXPECT_THAT(row_of(exempt, 7), testing::ElementsAre(0, 1, 2, 3, 4, 5, 6));
  in.rule = PrefixRule::kCompete;
  EXPECT_EQ(run(in, 0, 20).table, exempt.table);
  // The coarse output of a row without preferences is the mean of the values.
  for (int d = 0; d < in.dim; ++d) {
    double mean = 0, size = 0;
    for (int j = 0; j < 20; ++j)
      mean += in.v[j * in.dim + d] / 20, size += std::abs(in.v[j * in.dim + d]) / 20;
    EXPECT_NEAR(exempt.out[d], mean, 24 * kUnit<TypeParam> * size);
  }
}

TYPED_TEST(CoarseAttentionTest, ANanScoreIsSelectedLast) {
  Inputs<TypeParam> in(19, 2, 5, true);
  for (const int j : {0, 3, 4, 11, 18}) in.k_means[j * in.dim] = std::nan("");
  for (const PrefixRule rule : {PrefixRule::kExempt, PrefixRule::kCompete}) {
    for (const int k : {1, 13, 15, 17}) {
      in.rule = rule, in.k = k;
      expect_rows(run(in, 0, 19), Naive(in).rows());
    }
  }
}

TYPED_TEST(CoarseAttentionTest, ThreadsAndSubsetsOfQueryBlocksChangeNothing) {
  for (const PrefixRule rule : {PrefixRule::kExempt, PrefixRule::kCompete}) {
    Inputs<TypeParam> in(211, 9, 20, false, 33);
    in.rule = rule;
    const Result<TypeParam> whole = run(in, 0, 211);
    for (const auto& [first, count] : std::vector<std::pair<int, int>>{
             {0, 211}, {0, 4}, {5, 40}, {30, 181}, {210, 1}, {100, 0}}) {
      for (const int threads : {1, 2, 5}) expect_part(in, whole, first, count, threads);
    }
  }
}

TYPED_TEST(CoarseAttentionTest, OutputIsTheSoftmaxOverAllBlocks) {
  using A = TypeParam;
  const Inputs<A> in(75, 4, 9, false, 21);
  for (const Isa isa : {Isa::kBaseline, Isa::kAvx2, Isa::kAvx512}) {
    const IsaLimit limit(isa);
    const Result<A> result = run(in, 0, 75, 2);
    for (int64_t row = 0; row < in.bh() * 75; ++row) {
      std::vector<double> s(75), error(75);
      double largest = -1e30, sum = 0;
      for (int j = 0; j < 75; ++j) {
        const A* q = &in.q[row * in.dim];
        const A* k = &in.k_means[(row / 75 * 75 + j) * in.dim];
        double size = 0;
        for (int d = 0; d < in.dim; ++d) {
          s[j] += in.scale * q[d] * k[d];
          size += std::abs(in.scale * q[d] * k[d]);
        }
        error[j] = (in.dim + 2) * size;
        largest = std::max(largest, s[j]);
      }
      for (int j = 0; j < 75; ++j) sum += std::exp(s[j] - largest);
      const double worst = *std::max_element(error.begin(), error.end());
      for (int d = 0; d < in.dim; ++d) {
        double out = 0, bound = 0;
        for (int j = 0; j < 75; ++j) {
          const double p = std::exp(s[j] - largest) / sum;
          const double term = p * in.v[(row / 75 * 75 + j) * in.dim + d];
          out += term;
          // Scores, once in the weight and once in the sum of weights; the exponential and its
          // argument; the sum of weights; the chain of the product.
          bound += std::abs(term) * (2 * worst + 16 + std::abs(s[j] - largest) + 10 + 76);
        }
        ASSERT_NEAR(result.out[row * in.dim + d], out, bound * kUnit<A>);
      }
    }
  }
}

// With unit vectors for keys and values, the scores are the queries and the output is their
// softmax.
TYPED_TEST(CoarseAttentionTest, SoftmaxOfRowsOfAnyLength) {
  using A = TypeParam;
  for (const int n : {1, 15, 16, 33, 100}) {
    Inputs<A> in(n, 0, 1, false, n);
    in.batch = in.heads = 1, in.scale = 1;
    in.q.resize(n * n);
    for (A& score : in.q) score *= 8;
    in.k_means.assign(n * n, A{0});
    for (int i = 0; i < n; ++i) in.k_means[i * n + i] = 1;
    in.v = in.k_means;
    const Result<A> result = run(in, 0, n);
    for (int row = 0; row < n; ++row) {
      const A* scores = &in.q[row * n];
      const double largest = *std::max_element(scores, scores + n);
      double sum = 0;
      for (int j = 0; j < n; ++j) sum += std::exp(scores[j] - largest);
      for (int j = 0; j < n; ++j) {
        const double difference = scores[j] - largest;
        // exp: 4 units (lanes.h) and the rounded argument; the sum: one unit per lane's addition.
        const double bound = (16 + std::abs(difference) + n / 8.0) * kUnit<A>;
        const double expected = std::exp(difference) / sum;
        ASSERT_NEAR(result.out[row * n + j], expected, bound * expected);
      }
    }
  }
}

TYPED_TEST(CoarseAttentionTest, SubBlockScoresSelectAndLeaveTheOutputAlone) {
  using A = TypeParam;
  for (const auto& [q_parts, k_parts] :
       std::vector<std::pair<int, int>>{{4, 4}, {1, 3}, {0, 4}, {2, 0}, {1, 1}}) {
    for (const PrefixRule rule : {PrefixRule::kExempt, PrefixRule::kCompete}) {
      Inputs<A> in(41, 3, 6, false, 12), plain = in;
      in.rule = plain.rule = rule;
      in.add_parts(q_parts, k_parts);
      Naive<A> naive(in);
      const Result<A> result = run(in, 0, 41, 2);
      EXPECT_EQ(result.out, run(plain, 0, 41).out);
      if constexpr (std::is_same_v<A, double>) {
        expect_rows(result, naive.rows());
      } else {
        // Scores of fp32 are off by the products' roundings and a few units of the logarithm's sum.
        const double error = 64 * kUnit<A> * 8;
        for (int64_t row = 0; row < in.bh() * 41; ++row) {
          if (row % 41 < in.prefix) continue;
          const Row chosen = row_of(result, row);
          ASSERT_EQ(chosen.size(), 9u);
          const A* s = naive.selecting().data() + row * 41;
          double least = 1e30;
          for (const int32_t j : chosen) {
            if (rule == PrefixRule::kCompete || j >= in.prefix)
              least = std::min<double>(least, s[j]);
          }
          for (int j = rule == PrefixRule::kCompete ? 0 : in.prefix; j < 41; ++j) {
            if (std::binary_search(chosen.begin(), chosen.end(), j)) continue;
            ASSERT_LE(s[j], least + error);
          }
        }
      }
      for (const auto& [first, count] : std::vector<std::pair<int, int>>{{2, 30}, {40, 1}}) {
        expect_part(in, result, first, count, 3);
      }
    }
  }
}

TEST(SubBlockScoreTest, OneSubBlockIsTheCoarseScoreBitForBit) {
  Inputs<float> in(50, 2, 7, false), parted = in;
  parted.q_part_count = parted.k_part_count = 1;
  parted.q_parts = in.q, parted.k_parts = in.k_means;
  parted.q_counts.assign(50, 1), parted.k_counts.assign(50, 1);
  EXPECT_EQ(run(parted, 0, 50).table, run(in, 0, 50).table);
}

TEST(SubBlockScoreTest, LargeScoresNeitherOverflowNorVanish) {
  Inputs<float> in(24, 0, 3, false);
  in.add_parts(3, 2);
  for (float& value : in.q_parts) value *= 300;
  const Result<float> result = run(in, 0, 24);
  // The exponentials would overflow; the largest sub-score decides almost alone.
  for (int64_t row = 0; row < in.bh() * 24; ++row) {
    double best = -1e30;
    int64_t best_block = -1;
    for (int64_t j = 0; j < 24; ++j) {
      for (int a = 0; a < in.q_counts[row % 24]; ++a) {
        for (int b = 0; b < in.k_counts[j]; ++b) {
          double s = 0;
          for (int d = 0; d < in.dim; ++d) {
            s += in.q_parts[(row * 3 + a) * in.dim + d] *
                 double{in.k_parts[((row / 24 * 24 + j) * 2 + b) * in.dim + d]};
          }
          if (s > best) best = s, best_block = j;
        }
      }
    }
    EXPECT_THAT(row_of(result, row), testing::Contains(best_block));
  }
}

class CoarseBudgetTest : public testing::TestWithParam<const char*> {};

template <class A>
Inputs<A> budgeted(std::vector<int32_t> first_block, const char* coverage, int head_group, int k,
                   PrefixRule rule) {
  Inputs<A> in(first_block.back(), first_block.front(), k, true);
  in.heads = 4;
  in.rule = rule;
  const int64_t count = int64_t{in.bh()} * in.blocks * in.dim;
  in.q = coarse_values<A>(count, 21), in.k_means = coarse_values<A>(count, 22);
  in.v = coarse_values<A>(count, 23);
  in.budget = DomainBudget{
      BudgetForm::kFlat, std::move(first_block), {Decimal::parse(coverage)}, head_group};
  return in;
}

TEST_P(CoarseBudgetTest, EqualsTheRuleWrittenOut) {
  for (const auto& first_block : std::vector<std::vector<int32_t>>{{0, 7, 12, 20, 27},
                                                                   {3, 10, 15, 23, 30},
                                                                   {2, 2, 11, 11, 12, 26, 26},
                                                                   {4, 5, 6, 7, 8, 9},
                                                                   {0, 30, 33},
                                                                   {5, 25}}) {
    for (const int head_group : {0, 1, 2}) {
      for (const PrefixRule rule : {PrefixRule::kExempt, PrefixRule::kCompete}) {
        const auto in = budgeted<float>(first_block, GetParam(), head_group, 4, rule);
        const auto result = run(in, 0, in.blocks);
        expect_rows(result, Naive(in).rows());
        const auto precise = budgeted<double>(first_block, GetParam(), head_group, 4, rule);
        expect_rows(run(precise, 0, in.blocks, 3), Naive(precise).rows());
        auto free = in;
        free.budget.reset();
        EXPECT_EQ(run(free, 0, in.blocks).out, result.out);
      }
    }
  }
}

TEST_P(CoarseBudgetTest, DoesNotDependOnThreadsOrOnWhichDomainsACallHolds) {
  for (const PrefixRule rule : {PrefixRule::kExempt, PrefixRule::kCompete}) {
    auto in = budgeted<float>({4, 10, 10, 15, 223, 230}, GetParam(), 2, 5, rule);
    in.q = normal_values<float>(in.q.size(), 31);
    in.k_means = normal_values<float>(in.q.size(), 32);
    const auto whole = run(in, 0, 230);
    for (const auto& [first, count] : std::vector<std::pair<int, int>>{
             {0, 230}, {0, 2}, {2, 8}, {4, 11}, {10, 213}, {15, 208}, {223, 7}}) {
      for (const int threads : {1, 3}) expect_part(in, whole, first, count, threads);
    }
  }
}

TEST_P(CoarseBudgetTest, SubBlockScoresUnderABudget) {
  auto in = budgeted<double>({3, 12, 20, 31}, GetParam(), 0, 4, PrefixRule::kCompete);
  in.add_parts(2, 4);
  in.q = normal_values<double>(in.q.size(), 33);
  expect_rows(run(in, 0, 31, 2), Naive(in).rows());
}

TEST_P(CoarseBudgetTest, ADomainImportsNoMoreThanItsBudget) {
  for (const int k : {6, 32}) {
    const auto in = budgeted<float>({4, 12, 20, 28, 36}, GetParam(), 0, k, PrefixRule::kExempt);
    const auto result = run(in, 0, 36);
    for (int b = 0; b < in.batch; ++b) {
      for (int first = 4; first < 36; first += 8) {
        std::set<std::pair<int, int>> needed;
        for (int h = 0; h < 4; ++h) {
          for (int i = first; i < first + 8; ++i) {
            for (const int j : row_of(result, (b * 4 + h) * 36 + i)) {
              if (j >= 4 && (j < first || j >= first + 8)) needed.emplace(h, j);
            }
          }
        }
        const int64_t pairs = static_cast<int64_t>(needed.size());
        const int64_t budget = in.budget->max_coverage[0].floor_times(4 * 24);
        EXPECT_LE(pairs, budget);
        // Rows that may select everything take every import.
        if (k == 32) {
          EXPECT_EQ(pairs, budget);
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Coverages, CoarseBudgetTest,
                         testing::Values("0", "0.1", "0.25", "0.5", "0.99", "1"));

TEST(CoarseBudgetLimitsTest, FullCoverageAndOneDomainAreThePlainRule) {
  for (const PrefixRule rule : {PrefixRule::kExempt, PrefixRule::kCompete}) {
    for (auto in : {budgeted<float>({3, 8, 16, 23}, "1", 0, 4, rule),
                    budgeted<float>({3, 3, 23, 23}, "0.1", 0, 4, rule)}) {
      const auto result = run(in, 0, 23);
      expect_rows(result, Naive(in).plain_rows());
      in.budget.reset();
      EXPECT_EQ(run(in, 0, 23).table, result.table);
    }
  }
}

TEST(CoarseBudgetLimitsTest, ABudgetAboveTheNaturalCoverageChangesNothing) {
  auto in = budgeted<float>({0, 10, 20, 30}, "0.5", 0, 2, PrefixRule::kExempt);
  for (int row = 0; row < in.bh() * 30; ++row) {
    in.q[row * in.dim] = 1;
    in.k_means[row * in.dim] = row % 30 >= 12 && row % 30 < 18 ? 200 : 0;
  }
  expect_rows(run(in, 0, 30), Naive(in).plain_rows());
}

TEST(CoarseBudgetLimitsTest, WithoutImportsASmallDomainGivesShortRows) {
  const auto in = budgeted<float>({2, 4, 14}, "0", 0, 5, PrefixRule::kExempt);
  const auto result = run(in, 0, 14);
  EXPECT_THAT(row_of(result, 2), testing::ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(row_of(result, 4), testing::SizeIs(7));
}

TEST(CoarseBudgetLimitsTest, NanScoresGiveFullRows) {
  auto in = budgeted<float>({2, 6, 10}, "0.25", 0, 3, PrefixRule::kExempt);
  for (float& value : in.q) value = std::nanf("");
  const auto result = run(in, 0, 10);
  for (int64_t row = 0; row < result.table.rows(); ++row) {
    EXPECT_EQ(row_of(result, row).size(), row % 10 < 2 ? 10u : 5u);
  }
}

TEST(CoarseBudgetLimitsTest, DomainsOfOneBlock) {
  Inputs<float> in(300, 0, 2, true, 1);
  in.batch = 1, in.heads = 16;
  in.q = coarse_values<float>(16 * 300, 41), in.k_means = coarse_values<float>(16 * 300, 42);
  in.v = in.q;
  std::vector<int32_t> first_block(301);
  std::iota(first_block.begin(), first_block.end(), 0);
  in.budget = DomainBudget{BudgetForm::kFlat, first_block, {Decimal::parse("0.003")}, 0};
  const auto whole = run(in, 0, 300, 2);
  for (const int first : {0, 150, 299}) expect_part(in, whole, first, 1, 1);
}

TEST(CoarseLimitsTest, ARowLongerThanTheTileBudgetIsATileByItself) {
  Inputs<float> in(270'000, 0, 3, true, 1);
  in.batch = in.heads = 1;
  in.q.resize(in.blocks), in.k_means.resize(in.blocks), in.v.resize(in.blocks);
  for (float& value : in.k_means) value = 0;
  for (const int j : {7, 200'000, 269'999}) in.k_means[j] = 1;
  in.q[100] = in.q[101] = 1;
  const auto result = run(in, 100, 2);
  EXPECT_THAT(row_of(result, 0), testing::ElementsAre(7, 200'000, 269'999));
  EXPECT_EQ(row_of(result, 1), row_of(result, 0));
}

TEST(CoarseLimitsTest, NothingToDo) {
  Inputs<float> in(6, 2, 2, true);
  EXPECT_EQ(run(in, 3, 0).table.rows(), 0);
  in.heads = 0;
  EXPECT_THAT(run(in, 0, 6).table.row_offsets, testing::ElementsAre(0));
}

TEST(CoarseLimitsTest, BrokenPreconditionsAreBugs) {
  Inputs<float> in(8, 2, 3, true);
  const auto expect_bug = [&](auto change) {
    Call<float> call(in, 2, 6);
    int k = in.k;
    change(call.problem, k);
    std::vector<float> out(call.size());
    EXPECT_THROW(select_and_attend(call.problem, k, out.data()), InternalError);
    const DomainBudget budget{BudgetForm::kFlat, {2, 8}, {Decimal()}, 0};
    EXPECT_THROW(budgeted_selection(call.problem, k, budget, {0, 1}, out.data()), InternalError);
  };
  using P = CoarseProblem<float>;
  expect_bug([](P&, int& k) { k = 0; });
  expect_bug([](P&, int& k) { k = 7; });
  expect_bug([](P& p, int&) { p.vc = nullptr; });
  expect_bug([](P& p, int&) { p.first_query_block = 3; });
  expect_bug([](P& p, int&) { p.prefix_blocks = 9; });
  const std::vector<int32_t> counts(8, 3);
  expect_bug([&](P& p, int&) { p.k_sub = {2, p.kc, counts}; });
  expect_bug([&](P& p, int&) { p.q_sub = {3, p.qc, counts}; });
}

// Gradients of sum(weight * out) by the formulas, on whole matrices.
std::vector<std::vector<double>> naive_gradients(const Inputs<double>& in, int first, int count,
                                                 const std::vector<double>& weight) {
  const int n = in.blocks, dim = in.dim;
  std::vector<double> dq(int64_t{in.bh()} * count * dim), dk(in.k_means.size()), dv(dk.size());
  for (int h = 0; h < in.bh(); ++h) {
    for (int i = 0; i < count; ++i) {
      const double* q = &in.q[(int64_t{h} * n + first + i) * dim];
      const double* w = &weight[(int64_t{h} * count + i) * dim];
      std::vector<double> p(n), dp(n);
      double sum = 0, delta = 0;
      for (int j = 0; j < n; ++j) {
        double s = 0;
        for (int d = 0; d < dim; ++d) {
          s += q[d] * in.k_means[(int64_t{h} * n + j) * dim + d];
          dp[j] += w[d] * in.v[(int64_t{h} * n + j) * dim + d];
        }
        p[j] = std::exp(in.scale * s);
        sum += p[j];
      }
      for (int j = 0; j < n; ++j) delta += (p[j] /= sum) * dp[j];
      for (int j = 0; j < n; ++j) {
        const double ds = in.scale * p[j] * (dp[j] - delta);
        for (int d = 0; d < dim; ++d) {
          const int64_t at = (int64_t{h} * n + j) * dim + d;
          dq[(int64_t{h} * count + i) * dim + d] += ds * in.k_means[at];
          dk[at] += ds * q[d];
          dv[at] += p[j] * w[d];
        }
      }
    }
  }
  return {dq, dk, dv};
}

template <class A>
std::vector<std::vector<A>> gradients(const Inputs<A>& in, int first, int count,
                                      const std::vector<A>& weight, int threads) {
  const Call<A> call(in, first, count, threads);
  Guarded<A> dq(call.size()), dk(in.k_means.size()), dv(in.v.size());
  coarse_attend_backward(call.problem, weight.data(), dq.get(), dk.get(), dv.get());
  return {dq.values(), dk.values(), dv.values()};
}

TEST(CoarseBackwardTest, EqualsTheFormulas) {
  for (const auto& [blocks, first, count] : std::vector<std::tuple<int, int, int>>{
           {1, 0, 1}, {9, 0, 9}, {9, 4, 0}, {150, 3, 140}, {300, 0, 300}}) {
    const Inputs<double> in(blocks, 0, 1, false, 13);
    const auto weight = normal_values<double>(int64_t{in.bh()} * count * in.dim, 51);
    const auto expected = naive_gradients(in, first, count, weight);
    const auto found = gradients(in, first, count, weight, 1);
    for (int which = 0; which < 3; ++which) {
      double largest = 1;
      for (const double x : expected[which]) largest = std::max(largest, std::abs(x));
      ASSERT_EQ(found[which].size(), expected[which].size());
      for (size_t i = 0; i < expected[which].size(); ++i) {
        ASSERT_NEAR(found[which][i], expected[which][i], 1e-12 * largest) << which << " " << i;
      }
    }
    for (const int threads : {2, 5}) EXPECT_EQ(gradients(in, first, count, weight, threads), found);
  }
}

TEST(CoarseBackwardTest, EqualsFiniteDifferences) {
  Inputs<double> in(7, 2, 1, false, 5);
  const auto weight = normal_values<double>(int64_t{in.bh()} * 7 * in.dim, 52);
  const auto loss = [&] {
    const Call<double> call(in, 0, 7);
    std::vector<double> out(call.size());
    coarse_attend(call.problem, out.data());
    return std::inner_product(out.begin(), out.end(), weight.begin(), 0.0);
  };
  const auto found = gradients(in, 0, 7, weight, 1);
  std::vector<double>* const inputs[] = {&in.q, &in.k_means, &in.v};
  const double h = 1e-5;  // truncation h^2 = 1e-10, rounding 1e-16 / h = 1e-11
  for (int which = 0; which < 3; ++which) {
    for (size_t i = 0; i < inputs[which]->size(); ++i) {
      double& value = (*inputs[which])[i];
      const double kept = value;
      value = kept + h;
      const double above = loss();
      value = kept - h;
      const double below = loss();
      value = kept;
      EXPECT_NEAR(found[which][i], (above - below) / (2 * h), 1e-8);
    }
  }
}

TEST(CoarseBackwardTest, QueryGradientsDoNotDependOnTheSubset) {
  const Inputs<float> in(190, 0, 1, false, 20);
  const auto weight = normal_values<float>(int64_t{in.bh()} * 190 * in.dim, 53);
  const auto whole = gradients(in, 0, 190, weight, 2);
  const auto part = gradients(in, 33, 120, in.rows(weight, 33, 120, in.dim), 3);
  EXPECT_EQ(part[0], in.rows(whole[0], 33, 120, in.dim));
}

}  // namespace
}  // namespace sprocket::kernels
