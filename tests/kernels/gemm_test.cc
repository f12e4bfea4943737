#include "kernels/gemm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "base/philox.h"
#include "kernels/isa.h"

namespace sprocket::kernels {
namespace {

std::vector<float> normal_values(int64_t count, uint64_t sample) {
  std::vector<float> values(count);
  RandomStream(11, 0, sample, RandomPurpose::kTest).normal(values);
  return values;
}

struct Shape {
  int64_t m, n, k;
};

struct Problem {
  Shape shape;
  std::vector<float> x, w, bias, dy;
  explicit Problem(const Shape& s)
      : shape(s),
        x(normal_values(s.m * s.k, 1)),
        w(normal_values(s.n * s.k, 2)),
        bias(normal_values(s.n, 3)),
        dy(normal_values(s.m * s.n, 4)) {}
};

// Results start as NaN, so that an element left out shows.
std::vector<float> nans(int64_t count) {
  return std::vector<float>(count, std::numeric_limits<float>::quiet_NaN());
}

struct Results {
  std::vector<float> y, dx, dw, db;
  bool operator==(const Results&) const = default;
};

Results compute(const Problem& p, int threads) {
  const auto& [m, n, k] = p.shape;
  Results r{nans(m * n), nans(m * k), nans(n * k), nans(n)};
  linear_forward(p.x.data(), p.w.data(), p.bias.data(), r.y.data(), m, n, k, threads);
  linear_backward_input(p.dy.data(), p.w.data(), r.dx.data(), m, n, k, threads);
  linear_backward_weight(p.dy.data(), p.x.data(), r.dw.data(), r.db.data(), m, n, k, false,
                         threads);
  return r;
}

// Checks c[i, j] = start[j] + sum over l of a(i, l) * b(l, j). A sum of `depth` products in any
// order errs by at most (depth + 1) u sum |a b|, u = 2^-24.
template <class ElementA, class ElementB>
void expect_product(const std::vector<float>& c, int64_t rows, int64_t columns, int64_t depth,
                    ElementA a, ElementB b, const std::vector<float>& start) {
  ASSERT_EQ(static_cast<int64_t>(c.size()), rows * columns);
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < columns; ++j) {
      double sum = start.empty() ? 0 : start[j], size = std::abs(sum);
      for (int64_t l = 0; l < depth; ++l) {
        const double term = static_cast<double>(a(i, l)) * b(l, j);
        sum += term;
        size += std::abs(term);
      }
      ASSERT_NEAR(c[i * columns + j], sum, static_cast<double>(depth + 1) * 0x1p-24 * size)
          << "element " << i << ", " << j;
    }
  }
}

void expect_correct(const Problem& p, const Results& r) {
  const auto& [m, n, k] = p.shape;
  SCOPED_TRACE(testing::Message() << "m " << m << " n " << n << " k " << k << " on "
                                  << name_of(current_isa()));
  const auto x = [&, k = k](int64_t row, int64_t l) { return p.x[row * k + l]; };
  const auto w = [&, k = k](int64_t j, int64_t l) { return p.w[j * k + l]; };
  const auto dy = [&, n = n](int64_t row, int64_t j) { return p.dy[row * n + j]; };
  expect_product(
      r.y, m, n, k, x, [&](int64_t l, int64_t j) { return w(j, l); }, p.bias);
  expect_product(r.dx, m, k, n, dy, w, {});
  expect_product(r.dw, n, k, m, [&](int64_t j, int64_t row) { return dy(row, j); }, x, {});
  expect_product(r.db, 1, n, m, [](int64_t, int64_t) { return 1.0f; }, dy, {});
}

// Whole tiles, remainders on every side, single elements, more rows than a partial sum has, and
// sizes on both sides of the few-rows path.
const std::vector<Shape> kShapes{{64, 64, 192}, {65, 63, 193},  {1, 1, 1},      {7, 130, 70},
                                 {8, 130, 70},  {200, 17, 5},   {130, 3, 400},  {2, 200, 33},
                                 {1000, 40, 9}, {961, 129, 20}, {40, 450, 100}, {3, 5, 31}};

class IsaTest : public testing::TestWithParam<Isa> {
 protected:
  void SetUp() override { limit_isa(GetParam()); }
  void TearDown() override { limit_isa(Isa::kAvx512); }
};

TEST_P(IsaTest, ProductsAreWithinTheirErrorBounds) {
  for (const Shape& shape : kShapes) {
    const Problem problem(shape);
    expect_correct(problem, compute(problem, 1));
  }
}

TEST_P(IsaTest, ThreadsDoNotChangeABit) {
  for (const Shape& shape : kShapes) {
    const Problem problem(shape);
    const Results one = compute(problem, 1);
    EXPECT_EQ(one, compute(problem, 2));
    EXPECT_EQ(one, compute(problem, 3));
  }
}

std::string test_name(const testing::TestParamInfo<Isa>& test) {
  switch (test.param) {
    case Isa::kBaseline:
      return "Baseline";
    case Isa::kAvx2:
      return "Avx2";
    case Isa::kAvx512:
      return "Avx512";
  }
  return "";
}

INSTANTIATE_TEST_SUITE_P(All, IsaTest, testing::Values(Isa::kBaseline, Isa::kAvx2, Isa::kAvx512),
                         test_name);

TEST(GemmTest, EmptySumsAreZeroAndEmptyResultsAreLegal) {
  for (const Shape& shape :
       {Shape{0, 5, 6}, {9, 0, 6}, {9, 5, 0}, {3, 5, 0}, {0, 0, 0}, {0, 5, 0}}) {
    const Problem problem(shape);
    expect_correct(problem, compute(problem, 2));
  }
}

TEST(GemmTest, WithoutBiasTheSumStands) {
  const Problem p({20, 30, 40});
  std::vector<float> y = nans(20 * 30), few = nans(2 * 30);
  linear_forward(p.x.data(), p.w.data(), nullptr, y.data(), 20, 30, 40, 1);
  linear_forward(p.x.data(), p.w.data(), nullptr, few.data(), 2, 30, 40, 1);
  const auto x = [&](int64_t row, int64_t l) { return p.x[row * 40 + l]; };
  const auto w = [&](int64_t l, int64_t j) { return p.w[j * 40 + l]; };
  expect_product(y, 20, 30, 40, x, w, {});
  expect_product(few, 2, 30, 40, x, w, {});
}

TEST(GemmTest, WeightGradientsAccumulate) {
  for (const int64_t m : {0, 50, 2000}) {
    const Problem p({m, 70, 66});
    const Results fresh = compute(p, 1);
    std::vector<float> dw(70 * 66, 0), db(70, 0);
    linear_backward_weight(p.dy.data(), p.x.data(), dw.data(), db.data(), m, 70, 66, true, 2);
    EXPECT_EQ(dw, fresh.dw);  // onto zeros: the same sums in the same order
    EXPECT_EQ(db, fresh.db);
    linear_backward_weight(p.dy.data(), p.x.data(), dw.data(), db.data(), m, 70, 66, true, 1);
    const auto dy2 = [&](int64_t j, int64_t row) { return p.dy[row % m * 70 + j]; };
    const auto x2 = [&](int64_t row, int64_t l) { return p.x[row % m * 66 + l]; };
    expect_product(dw, 70, 66, 2 * m, dy2, x2, {});
    expect_product(
        db, 1, 70, 2 * m, [](int64_t, int64_t) { return 1.0f; },
        [&](int64_t row, int64_t j) { return dy2(j, row); }, {});
  }
}

TEST(GemmTest, ARowDoesNotDependOnTheOthers) {
  const int64_t m = 150, n = 130, k = 210;
  const Problem p({m, n, k});
  const Results all = compute(p, 1);
  for (const auto& [first, last] :
       {std::pair<int64_t, int64_t>{0, 8}, {3, 70}, {100, 150}, {31, 40}}) {
    const int64_t rows = last - first;
    std::vector<float> y = nans(rows * n), dx = nans(rows * k);
    linear_forward(p.x.data() + first * k, p.w.data(), p.bias.data(), y.data(), rows, n, k, 2);
    linear_backward_input(p.dy.data() + first * n, p.w.data(), dx.data(), rows, n, k, 2);
    EXPECT_EQ(y, std::vector<float>(all.y.begin() + first * n, all.y.begin() + last * n));
    EXPECT_EQ(dx, std::vector<float>(all.dx.begin() + first * k, all.dx.begin() + last * k));
  }
}

}  // namespace
}  // namespace sprocket::kernels
