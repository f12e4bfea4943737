#include "kernels/sampled_scores.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>

#include "base/error.h"
#include "base/philox.h"
#include "kernels/isa.h"

namespace sprocket::kernels {
namespace {

using testing::Each;
using testing::ElementsAre;

template <class A>
std::vector<A> normal_values(int64_t count, uint64_t sample) {
  std::vector<float> values(count);
  RandomStream(11, 0, sample, RandomPurpose::kTest).normal(values);
  return {values.begin(), values.end()};
}

template <class A>
constexpr double kUnit = std::is_same_v<A, double> ? 0x1p-53 : 0x1p-24;

struct IsaLimit {
  explicit IsaLimit(Isa isa) { limit_isa(isa); }
  ~IsaLimit() { limit_isa(Isa::kAvx512); }
};

// ---- sampling ----

const std::vector<int64_t> kOffsets{0, 5, 5, 70, 198, 198 + 127, 326, 329};

// 0 to count - 1.
std::vector<int> heads(int count) {
  std::vector<int> numbers(count);
  std::iota(numbers.begin(), numbers.end(), 0);
  return numbers;
}

std::vector<int32_t> rows_of(const BlockSamples& s, int head, int block) {
  const auto first = s.rows.begin() + (static_cast<int64_t>(head) * s.blocks + block) * s.samples;
  return {first, first + s.samples};
}

TEST(SampleBlocksTest, DrawsDistinctTokensOfTheBlockInAscendingOrder) {
  const BlockSamples s = sample_blocks(kOffsets, 0, 7, heads(3), 16, {5, 2, 1});
  EXPECT_EQ(s.samples, 16);
  EXPECT_THAT(s.counts, ElementsAre(5, 0, 16, 16, 16, 1, 3));
  for (int h = 0; h < 3; ++h) {
    for (int block = 0; block < 7; ++block) {
      const auto rows = rows_of(s, h, block);
      for (int i = 0; i < 16; ++i) {
        if (i >= s.counts[block]) {
          EXPECT_EQ(rows[i], -1);
          continue;
        }
        EXPECT_GE(rows[i], kOffsets[block]);
        EXPECT_LT(rows[i], kOffsets[block + 1]);
        if (i > 0) {
          EXPECT_GT(rows[i], rows[i - 1]);
        }
      }
    }
  }
  EXPECT_EQ(rows_of(s, 1, 6)[0], 326);  // the last block: all of its three tokens
  EXPECT_EQ(rows_of(s, 1, 6)[2], 328);
}

TEST(SampleBlocksTest, EveryRankDrawsTheSame) {
  const SampleKey key{5, 2, 1};
  const BlockSamples whole = sample_blocks(kOffsets, 0, 7, heads(4), 16, key);
  const std::vector<int> held{3, 1};
  const BlockSamples part = sample_blocks(kOffsets, 2, 3, held, 16, key);
  for (int h = 0; h < 2; ++h) {
    for (int block = 0; block < 3; ++block) {
      auto rows = rows_of(whole, held[h], block + 2);
      for (int32_t& row : rows) row -= row < 0 ? 0 : static_cast<int32_t>(kOffsets[2]);
      EXPECT_EQ(rows_of(part, h, block), rows);
    }
  }
}

TEST(SampleBlocksTest, DependsOnTheWholeKey) {
  const std::vector<int64_t> offsets{0, 128, 256};
  const auto draw = [&](SampleKey key, const std::vector<int>& held) {
    return sample_blocks(offsets, 0, 2, held, 32, key);
  };
  const BlockSamples base = draw({5, 2, 1}, {0, 1});
  EXPECT_EQ(base.rows, draw({5, 2, 1}, {0, 1}).rows);
  EXPECT_NE(base.rows, draw({5, 2, 1}, {2, 3}).rows);
  for (const SampleKey& other : {SampleKey{6, 2, 1}, SampleKey{5, 3, 1}, SampleKey{5, 2, 0}}) {
    EXPECT_NE(base.rows, draw(other, {0, 1}).rows);
  }
  EXPECT_NE(rows_of(base, 0, 0), rows_of(base, 1, 0));
  auto second = rows_of(base, 0, 1);
  for (int32_t& row : second) row -= 128;
  EXPECT_NE(rows_of(base, 0, 0), second);
}

TEST(SampleBlocksTest, ZeroTakesAllTokens) {
  const BlockSamples s = sample_blocks(kOffsets, 3, 2, heads(1), 0, {});
  EXPECT_EQ(s.samples, 128);  // the largest block of the sequence
  EXPECT_THAT(s.counts, ElementsAre(128, 127));
  for (int i = 0; i < 128; ++i) EXPECT_EQ(rows_of(s, 0, 0)[i], i);
  EXPECT_EQ(rows_of(s, 0, 1)[126], 128 + 126);
  EXPECT_EQ(rows_of(s, 0, 1)[127], -1);
}

TEST(SampleBlocksTest, EveryTokenIsEquallyLikely) {
  const int blocks = 4000, size = 16, per_block = 4;
  std::vector<int64_t> offsets(blocks + 1);
  for (int i = 0; i <= blocks; ++i) offsets[i] = static_cast<int64_t>(i) * size;
  const BlockSamples s = sample_blocks(offsets, 0, blocks, heads(1), per_block, {1, 0, 0});
  std::vector<int> hits(size);
  for (const int32_t row : s.rows) ++hits[row % size];
  // Binomial(4000, 1/4): standard deviation sqrt(4000 * 3 / 16) = 27.4; five of them.
  for (const int count : hits) EXPECT_NEAR(count, blocks / 4, 5 * 27.4);
}

TEST(SampleBlocksTest, BadKeysAreBugs) {
  EXPECT_THROW(sample_blocks(kOffsets, 0, 8, heads(1), 4, {}), InternalError);
  EXPECT_THROW(sample_blocks(kOffsets, 0, 7, std::vector<int>{4095, 4096}, 4, {}), InternalError);
  EXPECT_THROW(sample_blocks(kOffsets, 0, 7, heads(1), -1, {}), InternalError);
}

TEST(GatherSamplesTest, CopiesRowsAndZeroesUnusedSlots) {
  const int batch = 2, heads = 3, rows = 329, dim = 5;
  const auto x = normal_values<float>(batch * rows * heads * (dim + 1), 1);
  std::vector<BFloat16> half(x.size());
  for (size_t i = 0; i < x.size(); ++i) half[i] = BFloat16(x[i]);
  const HeadView<const BFloat16> view{half.data(), rows * heads * (dim + 1), heads * (dim + 1),
                                      dim + 1};
  const BlockSamples s = sample_blocks(kOffsets, 0, 7, kernels::heads(heads), 9, {3, 1, 2});
  const int64_t count = batch * heads * 7 * 9 * dim;
  std::vector<float> out(count + 16, 77);
  gather_samples<BFloat16>(view, s, batch, dim, out.data() + 8, 2);
  EXPECT_THAT(std::vector<float>(out.begin(), out.begin() + 8), Each(77));
  EXPECT_THAT(std::vector<float>(out.end() - 8, out.end()), Each(77));
  for (int b = 0; b < batch; ++b) {
    for (int h = 0; h < heads; ++h) {
      for (int slot = 0; slot < 7 * 9; ++slot) {
        const int32_t row = s.rows[h * 7 * 9 + slot];
        for (int d = 0; d < dim; ++d) {
          const float expected = row < 0 ? 0 : static_cast<float>(view.row(b, row, h)[d]);
          ASSERT_EQ(out[8 + ((b * heads + h) * 63 + slot) * dim + d], expected);
        }
      }
    }
  }
}

// ---- scores ----

template <class A>
class Rows : public ScoreRowSink<A> {
 public:
  Rows(int threads, int query_blocks)
      : threads_(threads), query_blocks_(query_blocks), found_(threads) {}
  void take(int thread, int64_t batch_head, int query_block, std::span<const A> scores) override {
    ASSERT_LT(thread, threads_);
    const auto [at, is_new] = found_[thread].try_emplace(batch_head * query_blocks_ + query_block,
                                                         scores.begin(), scores.end());
    EXPECT_TRUE(is_new);
  }
  std::map<int64_t, std::vector<A>> all() const {
    std::map<int64_t, std::vector<A>> rows;
    for (const auto& part : found_) {
      for (const auto& [row, scores] : part) EXPECT_TRUE(rows.emplace(row, scores).second);
    }
    return rows;
  }

 private:
  int threads_;
  int64_t query_blocks_;
  std::vector<std::map<int64_t, std::vector<A>>> found_;
};

template <class A>
std::map<int64_t, std::vector<A>> score_rows(const SampledScoreProblem<A>& problem) {
  Rows<A> sink(problem.threads, problem.query_blocks);
  sampled_scores(problem, sink);
  return sink.all();
}

template <class A>
struct Case {
  SampledScoreProblem<A> problem;
  std::vector<A> q, k;
  std::vector<int32_t> counts;

  Case(int samples, int head_dim, int blocks, double scale = 0) {
    problem.batch = 2;
    problem.heads = 2;
    problem.query_blocks = problem.kv_blocks = blocks;
    problem.samples = samples;
    problem.head_dim = head_dim;
    problem.scale = scale > 0 ? scale : 1 / std::sqrt(head_dim);
    const int64_t slots = static_cast<int64_t>(4) * blocks * samples;
    q = normal_values<A>(slots * head_dim, 2);
    k = normal_values<A>(slots * head_dim, 3);
    counts.assign(blocks, samples);
    for (const int block : {1, 4, 5}) {
      if (block < blocks) counts[block] = (samples * (block - 1) + 3) / 5;  // 0 or 1 for block 1
    }
    for (int64_t slot = 0; slot < slots; ++slot) {
      if (slot % samples < counts[slot / samples % blocks]) continue;
      std::fill_n(q.begin() + slot * head_dim, head_dim, A{0});
      std::fill_n(k.begin() + slot * head_dim, head_dim, A{0});
    }
    attach();
  }
  Case(const Case&) = delete;
  void attach() {
    problem.q = q.data();
    problem.k = k.data();
    problem.q_counts = counts;
    problem.k_counts = counts;
  }

  // Compares with the definition, written out in double on the same inputs.
  void check() const {
    const auto& p = problem;
    const auto rows = score_rows(p);
    ASSERT_EQ(static_cast<int>(rows.size()), 4 * (p.query_blocks - p.prefix_blocks));
    for (int64_t bh = 0; bh < 4; ++bh) {
      for (int i = p.prefix_blocks; i < p.query_blocks; ++i) {
        std::vector<double> expected(p.kv_blocks, 0);
        double logit_error = 0, keys = 0;
        for (int a = 0; a < counts[i]; ++a) {
          std::vector<double> s;
          std::vector<int> block_of;
          for (int j = p.prefix_blocks; j < p.kv_blocks; ++j) {
            for (int b = 0; b < counts[j]; ++b) {
              double sum = 0, size = 0;
              for (int d = 0; d < p.head_dim; ++d) {
                const double term =
                    double(q[((bh * p.query_blocks + i) * p.samples + a) * p.head_dim + d]) *
                    k[((bh * p.kv_blocks + j) * p.samples + b) * p.head_dim + d];
                sum += term;
                size += std::abs(term);
              }
              logit_error = std::max(logit_error, p.scale * (p.head_dim + 2) * kUnit<A> * size);
              s.push_back(p.scale * sum);
              block_of.push_back(j);
            }
          }
          const double largest = *std::max_element(s.begin(), s.end());
          double total = 0;
          for (const double x : s) total += std::exp(x - largest);
          if (p.score == SampledScore::kExpMinusMax) total = 1;
          keys = static_cast<double>(s.size());
          for (size_t b = 0; b < s.size(); ++b) {
            double& best = expected[block_of[b]];
            best = std::max(best, std::exp(s[b] - largest) / total);
          }
        }
        const auto& row = rows.at(bh * p.query_blocks + i);
        ASSERT_EQ(static_cast<int>(row.size()), p.kv_blocks - p.prefix_blocks);
        for (int j = p.prefix_blocks; j < p.kv_blocks; ++j) {
          // Two logits off by logit_error in numerator and sum each; exp: 8 units with its argument
          // (up to 100); sums of positive terms: a unit per addition and per rescaling.
          const double relative = 4 * logit_error + (2 * keys + 250) * kUnit<A>;
          ASSERT_NEAR(row[j - p.prefix_blocks], expected[j], relative * expected[j] + 1e-36)
              << "query block " << i << ", block " << j;
        }
      }
    }
  }
};

template <class A>
class SampledScoresTest : public testing::Test {};
using ScoreTypes = testing::Types<float, double>;
TYPED_TEST_SUITE(SampledScoresTest, ScoreTypes);

TYPED_TEST(SampledScoresTest, AreTheDefinition) {
  for (const auto& [samples, dim, blocks] : std::vector<std::array<int, 3>>{{32, 64, 9},
                                                                            {16, 32, 13},
                                                                            {1, 16, 7},
                                                                            {5, 19, 8},
                                                                            {20, 48, 6},
                                                                            {70, 16, 3},
                                                                            {128, 32, 2},
                                                                            {7, 128, 1}}) {
    Case<TypeParam> test(samples, dim, blocks);
    for (const SampledScore score : {SampledScore::kSoftmax, SampledScore::kExpMinusMax}) {
      test.problem.score = score;
      for (const Isa isa : {Isa::kBaseline, Isa::kAvx2, Isa::kAvx512}) {
        const IsaLimit limit(isa);
        test.check();
        if (this->HasFatalFailure()) FAIL() << samples << " samples of " << dim << ", " << blocks;
      }
    }
  }
}

TYPED_TEST(SampledScoresTest, PrefixBlocksStayOutside) {
  Case<TypeParam> test(12, 32, 9);
  for (const int prefix : {1, 3, 8, 9}) {
    test.problem.prefix_blocks = prefix;
    test.check();
  }
}

TYPED_TEST(SampledScoresTest, LargeLogitsSaturateWithoutOverflow) {
  Case<TypeParam> test(8, 16, 7, 16);
  for (const SampledScore score : {SampledScore::kSoftmax, SampledScore::kExpMinusMax}) {
    test.problem.score = score;
    for (const auto& [row, scores] : score_rows(test.problem)) {
      for (const TypeParam s : scores) {
        EXPECT_GE(s, 0);
        EXPECT_LE(s, 1);
      }
      if (score == SampledScore::kExpMinusMax && test.counts[row % 7] > 0) {
        EXPECT_EQ(*std::max_element(scores.begin(), scores.end()), 1);
      }
    }
    test.check();
  }
}

TYPED_TEST(SampledScoresTest, EqualKeysGiveEqualScores) {
  Case<TypeParam> test(6, 32, 11);
  for (auto& value : test.k) value = TypeParam(0.5);
  test.counts.assign(11, 6);
  for (const auto& [row, scores] : score_rows(test.problem)) EXPECT_THAT(scores, Each(scores[0]));
  for (auto& value : test.q) value = TypeParam(0.25);
  for (const auto& [row, scores] : score_rows(test.problem)) {
    EXPECT_THAT(scores, Each(TypeParam(1) / 66));
  }
}

TYPED_TEST(SampledScoresTest, ARowDoesNotDependOnThreadsOrOnWhatElseTheCallHolds) {
  for (const int samples : {32, 20, 3}) {
    Case<TypeParam> test(samples, 64, 23);
    const auto whole = score_rows(test.problem);
    test.problem.threads = 3;
    EXPECT_EQ(whole, score_rows(test.problem));
    for (const auto& [first, last] : {std::pair{0, 1}, {3, 8}, {5, 23}, {9, 9}}) {
      SampledScoreProblem<TypeParam> part = test.problem;
      part.batch = part.heads = 1;
      part.query_blocks = last - first;
      part.first_query_block = first;
      const int64_t block_size = static_cast<int64_t>(samples) * 64;
      part.q_counts = part.q_counts.subspan(first, last - first);
      for (int64_t bh = 0; bh < 4; ++bh) {
        part.q = test.q.data() + (bh * 23 + first) * block_size;
        part.k = test.k.data() + bh * 23 * block_size;
        const auto rows = score_rows(part);
        ASSERT_EQ(static_cast<int>(rows.size()), last - first);
        for (const auto& [row, scores] : rows) ASSERT_EQ(scores, whole.at(bh * 23 + first + row));
      }
    }
  }
}

// bf16 products are exact; the same bounds hold, and the same independence.
TEST(SampledScoresOfBFloat16Test, AreTheDefinitionWhateverTheCallHolds) {
  for (const auto& [samples, dim] : {std::pair{32, 64}, {20, 128}, {5, 16}, {9, 19}}) {
    Case<float> test(samples, dim, 11);
    for (auto* values : {&test.q, &test.k}) {
      for (float& value : *values) value = static_cast<float>(BFloat16(value));
    }
    test.problem.bfloat16_values = true;
    for (const Isa isa : {Isa::kAvx2, Isa::kAvx512}) {
      const IsaLimit limit(isa);
      test.check();
      const auto whole = score_rows(test.problem);
      SampledScoreProblem<float> part = test.problem;
      part.threads = 2;
      part.batch = part.heads = 1;
      part.query_blocks = 3;
      part.first_query_block = 6;
      part.q_counts = part.q_counts.subspan(6, 3);
      part.q += 6 * samples * dim;
      for (const auto& [row, scores] : score_rows(part)) ASSERT_EQ(scores, whole.at(6 + row));
    }
  }
}

TYPED_TEST(SampledScoresTest, NanIsNeverAScore) {
  Case<TypeParam> test(4, 16, 6);
  test.q[3] = std::numeric_limits<TypeParam>::quiet_NaN();  // block 0 of the first head
  const auto rows = score_rows(test.problem);
  test.problem.score = SampledScore::kExpMinusMax;
  test.k[16 * 4 * 6 * 3 + 5] = std::numeric_limits<TypeParam>::infinity();  // last head
  for (const auto& result : {rows, score_rows(test.problem)}) {
    for (const auto& [row, scores] : result) {
      for (const TypeParam s : scores) {
        EXPECT_GE(s, 0);
        EXPECT_LE(s, 1);
      }
    }
  }
}

TEST(SampledScoresInputTest, WhatDoesNotFitIsABug) {
  Case<float> test(4, 16, 6);
  Rows<float> sink(1, 6);
  for (const auto spoil : std::vector<void (*)(SampledScoreProblem<float>&)>{
           [](auto& p) { p.samples = 0; }, [](auto& p) { p.scale = 0; },
           [](auto& p) { p.prefix_blocks = 7; }, [](auto& p) { p.kv_blocks = 5; }}) {
    SampledScoreProblem<float> broken = test.problem;
    spoil(broken);
    EXPECT_THROW(sampled_scores(broken, sink), InternalError);
  }
}

}  // namespace
}  // namespace sprocket::kernels
