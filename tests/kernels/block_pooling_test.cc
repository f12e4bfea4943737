#include "kernels/block_pooling.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "base/error.h"
#include "base/philox.h"
#include "kernels/isa.h"
#include "kernels/lanes.h"

namespace sprocket::kernels {
namespace {

template <class T>
double to_double(T value) {
  if constexpr (std::is_same_v<T, BFloat16>)
    return static_cast<float>(value);
  else
    return value;
}

template <class T>
std::vector<T> normal_values(int64_t count, uint64_t sample) {
  std::vector<float> values(count);
  RandomStream(7, 0, sample, RandomPurpose::kTest).normal(values);
  std::vector<T> result(count);
  for (int64_t i = 0; i < count; ++i) result[i] = static_cast<T>(values[i]);
  return result;
}

// Half an ulp of 1 in the type.
template <class A>
constexpr double kUnit = std::is_same_v<A, double> ? 0x1p-53 : 0x1p-24;

struct IsaLimit {
  explicit IsaLimit(Isa isa) { limit_isa(isa); }
  ~IsaLimit() { limit_isa(Isa::kAvx512); }
};

template <class T>
class PoolingTest : public testing::Test {};
using ElementTypes = testing::Types<double, float, BFloat16>;
TYPED_TEST_SUITE(PoolingTest, ElementTypes);

TYPED_TEST(PoolingTest, MeansOfStridedRowsWithPartialAndEmptyBlocks) {
  using T = TypeParam;
  using A = Accumulator<T>;
  const std::vector<int64_t> offsets{2, 2, 66, 67, 67, 90};
  const int batch = 2, heads = 3, rows = 90, blocks = 5;
  for (const int head_dim : {64, 19, 1}) {
    // [B, rows, H, D + 2] so that no stride is the contiguous one.
    const int64_t width = head_dim + 2;
    const auto x = normal_values<T>(batch * rows * heads * width, 1);
    const HeadView<const T> view{x.data(), rows * heads * width, heads * width, width};
    std::vector<A> pooled(batch * heads * blocks * head_dim, A(99)), again = pooled;
    pool_blocks<T>(view, offsets, batch, heads, head_dim, pooled.data(), 1);
    pool_blocks<T>(view, offsets, batch, heads, head_dim, again.data(), 3);
    EXPECT_EQ(pooled, again);
    for (int b = 0; b < batch; ++b) {
      for (int h = 0; h < heads; ++h) {
        for (int i = 0; i < blocks; ++i) {
          for (int d = 0; d < head_dim; ++d) {
            double sum = 0, size = 0;
            const int64_t count = offsets[i + 1] - offsets[i];
            for (int64_t row = offsets[i]; row < offsets[i + 1]; ++row) {
              sum += to_double(view.row(b, row, h)[d]);
              size += std::abs(to_double(view.row(b, row, h)[d]));
            }
            const double mean = count == 0 ? 0 : sum / count;
            const double bound = count == 0 ? 0 : (count + 1) * kUnit<A> * size / count;
            EXPECT_NEAR(pooled[((b * heads + h) * blocks + i) * head_dim + d], mean, bound);
          }
        }
      }
    }
  }
}

TYPED_TEST(PoolingTest, MeansOfPartsDropEmptyOnes) {
  using T = TypeParam;
  using A = Accumulator<T>;
  const std::vector<int64_t> offsets{1, 17, 20, 20, 29, 33, 34};  // capacity 16
  const int batch = 2, heads = 2, rows = 34, blocks = 6;
  for (const int head_dim : {128, 70}) {
    const auto x = normal_values<T>(batch * rows * heads * head_dim, 20);
    const auto view = contiguous_view<const T>(x.data(), rows, heads, head_dim);
    for (const int parts : {1, 2, 4, 16}) {
      const int64_t piece = 16 / parts;
      const std::vector<int32_t> counts = sub_block_counts(offsets, parts, 16);
      const int64_t size = int64_t{batch} * heads * blocks * parts * head_dim;
      std::vector<A> guarded(size + 64, A(99)), again = guarded;
      pool_sub_blocks<T>(view, offsets, parts, 16, batch, heads, head_dim, guarded.data() + 32, 1);
      pool_sub_blocks<T>(view, offsets, parts, 16, batch, heads, head_dim, again.data() + 32, 3);
      EXPECT_EQ(guarded, again);
      for (int i = 0; i < 32; ++i) EXPECT_TRUE(guarded[i] == 99 && guarded[size + 32 + i] == 99);
      for (int b = 0; b < batch; ++b) {
        for (int h = 0; h < heads; ++h) {
          for (int i = 0; i < blocks; ++i) {
            int32_t filled = 0;
            for (int part = 0; part < parts; ++part) {
              const int64_t first = std::min(offsets[i] + part * piece, offsets[i + 1]);
              const int64_t last = std::min(first + piece, offsets[i + 1]);
              filled += last > first;
              const A* mean =
                  guarded.data() + 32 + (((b * heads + h) * blocks + i) * parts + part) * head_dim;
              for (int d = 0; d < head_dim; ++d) {
                A sum = 0;
                for (int64_t row = first; row < last; ++row) {
                  sum += static_cast<A>(view.row(b, row, h)[d]);
                }
                ASSERT_EQ(mean[d], last > first ? sum / static_cast<A>(last - first) : A(0));
              }
            }
            ASSERT_EQ(counts[i], filled);
          }
        }
      }
    }
    std::vector<A> whole(int64_t{batch} * heads * blocks * head_dim), parts_of_one = whole;
    pool_blocks<T>(view, offsets, batch, heads, head_dim, whole.data(), 2);
    pool_sub_blocks<T>(view, offsets, 1, 16, batch, heads, head_dim, parts_of_one.data(), 2);
    EXPECT_EQ(whole, parts_of_one);
  }
  EXPECT_THROW(sub_block_counts(offsets, 3, 16), InternalError);
  EXPECT_THROW(sub_block_counts(offsets, 5, 15), InternalError);
}

TYPED_TEST(PoolingTest, GradientAddsEachRowsShare) {
  using T = TypeParam;
  using A = Accumulator<T>;
  const std::vector<int64_t> offsets{0, 4, 4, 9, 10};
  const int batch = 2, heads = 2, rows = 10, blocks = 4, head_dim = 21;
  const auto gradient = normal_values<A>(batch * heads * blocks * head_dim, 2);
  std::vector<A> dx(batch * rows * heads * head_dim, A(1));
  add_pooling_gradient<T>(gradient.data(), offsets, batch, heads, head_dim,
                          contiguous_view(dx.data(), rows, heads, head_dim), 2);
  for (int b = 0; b < batch; ++b) {
    for (int h = 0; h < heads; ++h) {
      for (int i = 0; i < blocks; ++i) {
        for (int64_t row = offsets[i]; row < offsets[i + 1]; ++row) {
          for (int d = 0; d < head_dim; ++d) {
            const A share = gradient[((b * heads + h) * blocks + i) * head_dim + d] /
                            static_cast<A>(offsets[i + 1] - offsets[i]);
            EXPECT_EQ(dx[((b * rows + row) * heads + h) * head_dim + d], A(1) + share);
          }
        }
      }
    }
  }
}

template <class A>
class CoarseTest : public testing::Test {};
using AccumulatorTypes = testing::Types<double, float>;
TYPED_TEST_SUITE(CoarseTest, AccumulatorTypes);

TYPED_TEST(CoarseTest, ScoresAreScaledDotProducts) {
  using A = TypeParam;
  const int bh = 2, nq = 13, nk = 71, dim = 37;
  const double scale = 0.25;
  const auto q = normal_values<A>(bh * nq * dim, 3), k = normal_values<A>(bh * nk * dim, 4);
  for (const Isa isa : {Isa::kBaseline, Isa::kAvx2, Isa::kAvx512}) {
    const IsaLimit limit(isa);
    std::vector<A> scores(bh * nq * nk);
    coarse_scores(q.data(), k.data(), bh, nq, nk, dim, scale, scores.data(), 2);
    for (int b = 0; b < bh; ++b) {
      for (int i = 0; i < nq; ++i) {
        for (int j = 0; j < nk; ++j) {
          double sum = 0, size = 0;
          for (int d = 0; d < dim; ++d) {
            const double term = double(q[(b * nq + i) * dim + d]) * k[(b * nk + j) * dim + d];
            sum += term;
            size += std::abs(term);
          }
          EXPECT_NEAR(scores[(b * nq + i) * nk + j], scale * sum,
                      scale * (dim + 2) * kUnit<A> * size);
        }
      }
    }
  }
}

TYPED_TEST(CoarseTest, AnElementDoesNotDependOnWhatElseIsComputed) {
  using A = TypeParam;
  const int nq = 211, nk = 97, dim = 64;
  const auto q = normal_values<A>(nq * dim, 5), k = normal_values<A>(nk * dim, 6);
  std::vector<A> all(nq * nk);
  coarse_scores(q.data(), k.data(), 1, nq, nk, dim, 0.125, all.data(), 1);
  for (const auto& [first, last] : {std::pair{0, 1}, {1, 9}, {5, 6}, {7, 203}, {190, 211}}) {
    const int rows = last - first;
    std::vector<A> part(rows * nk);
    coarse_scores(q.data() + first * dim, k.data(), 1, rows, nk, dim, 0.125, part.data(), 3);
    EXPECT_EQ(part, std::vector<A>(all.begin() + first * nk, all.begin() + last * nk));
  }
  for (const auto& [first, last] : {std::pair{0, 1}, {3, 50}, {60, 97}}) {
    const int columns = last - first;
    std::vector<A> part(nq * columns);
    coarse_scores(q.data(), k.data() + first * dim, 1, nq, columns, dim, 0.125, part.data(), 2);
    for (int i = 0; i < nq; ++i) {
      for (int j = 0; j < columns; ++j) {
        ASSERT_EQ(part[i * columns + j], all[i * nk + first + j]);
      }
    }
  }
}

// exp_of_lanes over a range of arguments, through the instruction set under test.
struct ExpKernel {
  SPROCKET_INLINE static void run(const float* x, float* y, int64_t count) {
    for (int64_t i = 0; i < count; i += kLanes<float>) store(y + i, exp_of_lanes(load(x + i)));
  }
};

TEST(LanesTest, ExpIsAccurateFromUnderflowToOverflow) {
  std::vector<float> x;
  for (float value = -104; value < 88.7f; value += 0.0117f) x.push_back(value);
  for (const float value :
       {0.0f, -0.0f, 1e-30f, 88.72f, 88.73f, 1000.0f, INFINITY, -1000.0f, -INFINITY, NAN}) {
    x.push_back(value);
  }
  x.resize((x.size() + 15) / 16 * 16);
  for (const Isa isa : {Isa::kBaseline, Isa::kAvx2, Isa::kAvx512}) {
    const IsaLimit limit(isa);
    std::vector<float> y(x.size());
    run_on_isa<ExpKernel>(static_cast<const float*>(x.data()), y.data(),
                          static_cast<int64_t>(x.size()));
    for (size_t i = 0; i < x.size(); ++i) {
      const double expected = std::exp(static_cast<double>(x[i]));
      if (std::isnan(x[i])) {
        EXPECT_TRUE(std::isnan(y[i]));
      } else if (expected > 3.4028235e38) {
        EXPECT_EQ(y[i], INFINITY) << x[i];
      } else {
        EXPECT_NEAR(y[i], expected, std::max(expected * 0x1p-22, 0x1p-149)) << x[i];
      }
    }
  }
}

template <class A>
struct SumKernel {
  SPROCKET_INLINE static void run(const A* x, A* sum) { *sum = sum_of_lanes<A>(load(x)); }
};

TYPED_TEST(CoarseTest, SumOfLanesIsOneTree) {
  using A = TypeParam;
  const auto x = normal_values<A>(kLanes<A>, 20);
  std::vector<A> tree = x;
  for (int half = kLanes<A> / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) tree[i] += tree[i + half];
  }
  for (const Isa isa : {Isa::kBaseline, Isa::kAvx2, Isa::kAvx512}) {
    const IsaLimit limit(isa);
    A sum = 0;
    run_on_isa<SumKernel<A>>(x.data(), &sum);
    EXPECT_EQ(sum, tree[0]);
  }
}

struct BFloat16Kernel {
  SPROCKET_INLINE static void run(const float* x, BFloat16* y) { store(y, load(x)); }
};

TEST(LanesTest, BFloat16RoundsAsTheScalarType) {
  const float x[16] = {0.0f,     -0.0f,     1.0f,     1.00390625f, 1.01171875f, 1.0039063f,
                       INFINITY, -INFINITY, NAN,      -NAN,        3.4e38f,     1e-40f,
                       -2.5f,    0.333333f, 65504.0f, -1e-20f};
  for (const Isa isa : {Isa::kBaseline, Isa::kAvx2, Isa::kAvx512}) {
    const IsaLimit limit(isa);
    BFloat16 y[16];
    run_on_isa<BFloat16Kernel>(static_cast<const float*>(x), static_cast<BFloat16*>(y));
    for (int i = 0; i < 16; ++i) EXPECT_EQ(y[i].bits, BFloat16(x[i]).bits) << x[i];
  }
}

}  // namespace
}  // namespace sprocket::kernels
