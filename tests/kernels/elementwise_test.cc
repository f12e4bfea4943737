#include "kernels/elementwise.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <tuple>
#include <vector>

#include "base/philox.h"
#include "kernels/isa.h"

namespace sprocket::kernels {
namespace {

using Doubles = std::vector<double>;

Doubles normal_values(int64_t count, uint64_t sample) {
  std::vector<float> values(count);
  RandomStream(5, 0, sample, RandomPurpose::kTest).normal(values);
  for (float& value : values) value = static_cast<float>(BFloat16(value));  // exact in every type
  return {values.begin(), values.end()};
}

template <class T>
std::vector<T> to(const Doubles& values) {
  std::vector<T> result(values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    if constexpr (std::is_same_v<T, double>)
      result[i] = values[i];
    else
      result[i] = static_cast<T>(static_cast<float>(values[i]));
  }
  return result;
}

template <class T>
Doubles to_doubles(const std::vector<T>& values) {
  Doubles result(values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    if constexpr (std::is_same_v<T, double>)
      result[i] = values[i];
    else
      result[i] = static_cast<float>(values[i]);
  }
  return result;
}

template <class A>
constexpr double kUnit = std::is_same_v<A, double> ? 0x1p-53 : 0x1p-24;
// What storing in T adds to a relative error.
template <class T>
constexpr double kStored = std::is_same_v<T, BFloat16> ? 0x1p-8 : 0;

// |found - expected| <= relative * |expected| + absolute, element by element.
void expect_close(const Doubles& found, const Doubles& expected, double relative, double absolute) {
  ASSERT_EQ(found.size(), expected.size());
  for (size_t i = 0; i < found.size(); ++i) {
    ASSERT_NEAR(found[i], expected[i], relative * std::abs(expected[i]) + absolute) << i;
  }
}

// The gradient of loss at input[i] is (loss(+h) - loss(-h)) / 2h: with h = 1e-5 the truncation is
// about 1e-10 and the rounding 1e-16 * |loss| / h about 1e-10.
void expect_gradient(Doubles& input, const Doubles& gradient, const std::function<double()>& loss) {
  ASSERT_EQ(input.size(), gradient.size());
  for (size_t i = 0; i < input.size(); ++i) {
    const double kept = input[i], h = 1e-5;
    input[i] = kept + h;
    const double above = loss();
    input[i] = kept - h;
    const double below = loss();
    input[i] = kept;
    ASSERT_NEAR(gradient[i], (above - below) / (2 * h), 2e-8 * (1 + std::abs(gradient[i]))) << i;
  }
}

double dot(const Doubles& a, const Doubles& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

// Rows over several chunks of a fixed-order sum, with a remainder; dims with and without remainder.
struct Sizes {
  int64_t batch, rows, dim;
  int64_t count() const { return batch * rows * dim; }
};
const std::vector<Sizes> kSizes{{2, 150, 48}, {1, 65, 38}, {3, 1, 6}, {2, 0, 16}};

template <class T>
struct LayerNormResult {
  std::vector<T> y;
  std::vector<Accumulator<T>> dx, dscale, dshift;
};

struct LayerNormProblem {
  Sizes s;
  bool shared;
  Doubles x, scale, shift, dy, dx;
  LayerNormProblem(const Sizes& sizes, bool shared_vectors)
      : s(sizes),
        shared(shared_vectors),
        x(normal_values(s.count(), 1)),
        scale(normal_values(vectors() * s.dim, 2)),
        shift(normal_values(vectors() * s.dim, 3)),
        dy(normal_values(s.count(), 4)),
        dx(normal_values(s.count(), 5)) {
    for (double& value : x) value += 2;
  }
  int64_t vectors() const { return shared ? 1 : s.batch; }
  int64_t stride() const { return shared ? 0 : s.dim; }
  double base() const { return shared ? 0 : 1; }

  template <class T>
  LayerNormResult<T> run(int threads) const {
    using A = Accumulator<T>;
    const auto xa = to<A>(x), sc = to<A>(scale), sh = to<A>(shift);
    const auto dyt = to<T>(dy);
    const RowAffine<A> affine{sc.data(), sh.data(), stride(), base()};
    LayerNormResult<T> r{std::vector<T>(x.size()), to<A>(dx), std::vector<A>(scale.size(), A(9)),
                         std::vector<A>(scale.size(), A(9))};
    layer_norm<T>(xa.data(), affine, s.batch, s.rows, s.dim, 1e-6, r.y.data(), threads);
    layer_norm_backward<T>(dyt.data(), xa.data(), affine, s.batch, s.rows, s.dim, 1e-6, r.dx.data(),
                           r.dscale.data(), r.dshift.data(), threads);
    return r;
  }
  Doubles reference() const {
    Doubles y(x.size());
    for (int64_t row = 0; row < s.batch * s.rows; ++row) {
      const double* in = x.data() + row * s.dim;
      double mean = 0, variance = 0;
      for (int64_t j = 0; j < s.dim; ++j) mean += in[j] / s.dim;
      for (int64_t j = 0; j < s.dim; ++j) variance += (in[j] - mean) * (in[j] - mean) / s.dim;
      const int64_t vector = row / s.rows * stride();
      for (int64_t j = 0; j < s.dim; ++j) {
        y[row * s.dim + j] =
            (in[j] - mean) / std::sqrt(variance + 1e-6) * (base() + scale[vector + j]) +
            shift[vector + j];
      }
    }
    return y;
  }
};

template <class T>
class ElementTest : public testing::Test {};
using ElementTypes = testing::Types<double, float, BFloat16>;
TYPED_TEST_SUITE(ElementTest, ElementTypes);

TYPED_TEST(ElementTest, LayerNorm) {
  using T = TypeParam;
  using A = Accumulator<T>;
  for (const Sizes& s : kSizes) {
    for (const bool shared : {false, true}) {
      const LayerNormProblem p(s, shared);
      const auto r = p.template run<T>(1);
      // Sums of dim terms in lanes and a handful of operations on values of at most 6 * 5.
      const double bound = (static_cast<double>(s.dim) / 8 + 16) * kUnit<A> * 30;
      expect_close(to_doubles(r.y), p.reference(), kStored<T>, bound);
      // The double kernel's gradients are checked by finite differences below.
      const auto exact = p.template run<double>(1);
      expect_close(to_doubles(r.dx), exact.dx, 0, bound);
      const double sums = static_cast<double>(s.batch * s.rows + s.dim) * kUnit<A> * 30;
      expect_close(to_doubles(r.dscale), exact.dscale, 0, sums);
      expect_close(to_doubles(r.dshift), exact.dshift, 0, sums);
    }
  }
}

TEST(LayerNormTest, GradientsEqualFiniteDifferencesAndAddToTheResidual) {
  for (const bool shared : {false, true}) {
    LayerNormProblem p({2, 3, 19}, shared);
    const auto r = p.run<double>(1);
    const auto loss = [&] { return dot(p.reference(), p.dy); };
    Doubles dx = r.dx;
    for (size_t i = 0; i < dx.size(); ++i) dx[i] -= p.dx[i];
    expect_gradient(p.x, dx, loss);
    expect_gradient(p.scale, r.dscale, loss);
    expect_gradient(p.shift, r.dshift, loss);
  }
}

struct RmsProblem {
  Sizes s;
  int64_t head_dim;  // 0: no rotation
  Doubles x, weight, cos, sin, dy;
  RmsProblem(const Sizes& sizes, int64_t head)
      : s(sizes),
        head_dim(head),
        x(normal_values(s.count(), 1)),
        weight(normal_values(s.dim, 2)),
        cos(s.rows * head / 2),
        sin(s.rows * head / 2),
        dy(normal_values(s.count(), 4)) {
    for (size_t i = 0; i < cos.size(); ++i) {
      cos[i] = std::cos(0.37 * static_cast<double>(i));
      sin[i] = std::sin(0.37 * static_cast<double>(i));
    }
  }
  template <class T>
  std::tuple<std::vector<T>, std::vector<T>, std::vector<Accumulator<T>>> run(int threads) const {
    using A = Accumulator<T>;
    const auto xt = to<T>(x), dyt = to<T>(dy);
    const auto wa = to<A>(weight), ca = to<A>(cos), sa = to<A>(sin);
    const Rotation<A> rotation =
        head_dim == 0 ? Rotation<A>{} : Rotation<A>{ca.data(), sa.data(), head_dim};
    auto y = xt, dx = dyt;  // in place
    std::vector<A> dweight(s.dim, A(9));
    rms_norm_rotate<T>(y.data(), wa.data(), rotation, s.batch, s.rows, s.dim, 1e-6, y.data(),
                       threads);
    rms_norm_rotate_backward<T>(dx.data(), xt.data(), wa.data(), rotation, s.batch, s.rows, s.dim,
                                1e-6, dx.data(), dweight.data(), threads);
    return {y, dx, dweight};
  }
  Doubles reference() const {
    Doubles y(x.size());
    for (int64_t row = 0; row < s.batch * s.rows; ++row) {
      double square = 0;
      for (int64_t j = 0; j < s.dim; ++j) square += x[row * s.dim + j] * x[row * s.dim + j] / s.dim;
      const auto normal = [&](int64_t j) {
        return x[row * s.dim + j] / std::sqrt(square + 1e-6) * weight[j];
      };
      for (int64_t j = 0; j < s.dim; ++j) {
        if (head_dim == 0) {
          y[row * s.dim + j] = normal(j);
          continue;
        }
        const int64_t angle = row % s.rows * (head_dim / 2) + j % head_dim / 2;
        y[row * s.dim + j] = j % 2 == 0 ? normal(j) * cos[angle] - normal(j + 1) * sin[angle]
                                        : normal(j - 1) * sin[angle] + normal(j) * cos[angle];
      }
    }
    return y;
  }
};

TYPED_TEST(ElementTest, RmsNormRotate) {
  using T = TypeParam;
  using A = Accumulator<T>;
  for (const Sizes& s : kSizes) {
    for (const int64_t head_dim : {int64_t{0}, s.dim, int64_t{2}}) {
      const RmsProblem p(s, head_dim);
      const auto [y, dx, dweight] = p.template run<T>(1);
      const double bound = (static_cast<double>(s.dim) / 8 + 16) * kUnit<A> * 30;
      expect_close(to_doubles(y), p.reference(), kStored<T>, bound);
      const auto [exact_y, exact_dx, exact_dweight] = p.template run<double>(1);
      expect_close(to_doubles(dx), exact_dx, kStored<T>, bound);
      const double sums = static_cast<double>(s.batch * s.rows + s.dim) * kUnit<A> * 30;
      expect_close(to_doubles(dweight), exact_dweight, 0, sums);
    }
  }
}

TEST(RmsNormTest, GradientsEqualFiniteDifferences) {
  for (const int64_t head_dim : {0, 6, 18}) {
    RmsProblem p({2, 3, 18}, head_dim);
    const auto [y, dx, dweight] = p.run<double>(1);
    const auto loss = [&] { return dot(p.reference(), p.dy); };
    expect_gradient(p.x, dx, loss);
    expect_gradient(p.weight, dweight, loss);
  }
}

TYPED_TEST(ElementTest, GatedResidual) {
  using T = TypeParam;
  using A = Accumulator<T>;
  for (const Sizes& s : kSizes) {
    const Doubles x = normal_values(s.count(), 1), y = normal_values(s.count(), 2);
    const int64_t stride = s.dim + 3;  // a row of a wider table
    const Doubles gate = normal_values(s.batch * stride, 3);
    const auto yt = to<T>(y);
    const auto ga = to<A>(gate);
    auto sum = to<A>(x), plain = to<A>(x);
    add_gated<T>(yt.data(), ga.data(), stride, s.batch, s.rows, s.dim, sum.data(), 2);
    add_gated<T>(yt.data(), nullptr, 0, s.batch, s.rows, s.dim, plain.data(), 2);
    std::vector<T> dy(y.size()), plain_dy(y.size());
    const auto dx = to<A>(x);
    std::vector<A> dgate(gate.size(), A(9));
    add_gated_backward<T>(dx.data(), yt.data(), ga.data(), stride, s.batch, s.rows, s.dim,
                          dy.data(), dgate.data(), 2);
    add_gated_backward<T>(dx.data(), nullptr, nullptr, 0, s.batch, s.rows, s.dim, plain_dy.data(),
                          nullptr, 2);
    Doubles expected_sum(x), expected_plain(x), expected_dy(y.size()),
        expected_dgate(gate.size(), 9);
    for (int64_t b = 0; b < s.batch; ++b) {
      for (int64_t j = 0; j < s.dim; ++j) {
        expected_dgate[b * stride + j] = 0;
        for (int64_t row = 0; row < s.rows; ++row) {
          const int64_t i = (b * s.rows + row) * s.dim + j;
          expected_sum[i] += y[i] * gate[b * stride + j];
          expected_plain[i] += y[i];
          expected_dy[i] = x[i] * gate[b * stride + j];
          expected_dgate[b * stride + j] += x[i] * y[i];
        }
      }
    }
    const double unit = kUnit<A> * 40;  // two roundings of values up to 20
    expect_close(to_doubles(sum), expected_sum, 0, unit);
    expect_close(to_doubles(plain), expected_plain, 0, unit);
    expect_close(to_doubles(dy), expected_dy, kStored<T>, unit);
    expect_close(to_doubles(plain_dy), x, 0, 0);
    expect_close(to_doubles(dgate), expected_dgate, 0, static_cast<double>(s.rows + 1) * unit);
  }
}

double gelu(double x) {
  return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
}

TYPED_TEST(ElementTest, GeluOverItsWholeRange) {
  using T = TypeParam;
  using A = Accumulator<T>;
  Doubles x;
  for (double value = -30; value < 30; value += 0.0625) x.push_back(value);
  for (const double value : {0.0, 1e-30, -1e-30, 1e30, -1e30, 3e38, -3e38}) x.push_back(value);
  x = to_doubles(to<T>(x));
  const auto xt = to<T>(x);
  std::vector<T> y(x.size()), dx(x.size());
  gelu_tanh<T>(xt.data(), static_cast<int64_t>(x.size()), y.data(), 2);
  const auto ones = to<T>(Doubles(x.size(), 1.0));
  gelu_tanh_backward<T>(ones.data(), xt.data(), static_cast<int64_t>(x.size()), dx.data(), 2);
  const Doubles found = to_doubles(y), slope = to_doubles(dx);
  const double c = std::sqrt(2 / M_PI);
  for (size_t i = 0; i < x.size(); ++i) {
    const double u = c * (x[i] + 0.044715 * x[i] * x[i] * x[i]);
    const double share = 1 / (1 + std::exp(-2 * u));
    const double conditioning = share == 1 ? 0 : std::abs(2 * u) * (1 - share);
    const double relative = (6 + 4 * std::min(conditioning, 1e9)) * kUnit<A> + kStored<T>;
    const double expected = x[i] * share;
    ASSERT_NEAR(found[i], expected, relative * std::abs(expected) + 1e-37) << x[i];
    if (std::abs(x[i]) < 5) {
      ASSERT_NEAR(expected, gelu(x[i]), 1e-13);  // the two forms are one function
    }
    const double change =
        std::abs(x[i]) > 24 ? 0
                            : x[i] * share * (1 - share) * 2 * c * (1 + 3 * 0.044715 * x[i] * x[i]);
    // The same argument for both terms, of which the second is at most about 1.
    ASSERT_NEAR(slope[i], share + change,
                kStored<T> * std::abs(share + change) +
                    40 * kUnit<A> * (1 + std::abs(change) * (1 + std::abs(2 * std::min(u, 50.0)))))
        << x[i];
  }
}

TEST(GeluTest, GradientEqualsFiniteDifferences) {
  Doubles x = normal_values(37, 1);
  for (double& value : x) value *= 2;
  const Doubles dy = normal_values(37, 2);
  Doubles dx = dy;
  gelu_tanh_backward<double>(dx.data(), x.data(), 37, dx.data(), 1);  // in place
  expect_gradient(x, dx, [&] {
    double sum = 0;
    for (size_t i = 0; i < x.size(); ++i) sum += gelu(x[i]) * dy[i];
    return sum;
  });
}

TEST(GeluTest, NanStaysNan) {
  const std::vector<float> x(20, std::numeric_limits<float>::quiet_NaN());
  std::vector<float> y(20), dx(20);
  gelu_tanh<float>(x.data(), 20, y.data(), 1);
  gelu_tanh_backward<float>(x.data(), x.data(), 20, dx.data(), 1);
  for (int i = 0; i < 20; ++i) EXPECT_TRUE(std::isnan(y[i]) && std::isnan(dx[i]));
}

// The update written as PyTorch documents it, in double.
TEST(AdamWTest, EqualsTheDocumentedUpdateOverSteps) {
  const int64_t count = 5000;
  Doubles p = normal_values(count, 1), m(count, 0.0), v(count, 0.0);
  auto p32 = to<float>(p), m32 = to<float>(m), v32 = to<float>(v);
  Doubles p64 = p, m64 = m, v64 = v;
  AdamWStep step{.learning_rate = 1e-2,
                 .beta1 = 0.9,
                 .beta2 = 0.95,
                 .eps = 1e-8,
                 .weight_decay = 0.1,
                 .gradient_scale = 0.25};
  for (int t = 1; t <= 5; ++t) {
    step.step = t;
    const Doubles g = normal_values(count, 10 + t);
    const auto g32 = to<float>(g);
    adamw_update<float>(step, g32.data(), count, p32.data(), m32.data(), v32.data(), 2);
    adamw_update<double>(step, g.data(), count, p64.data(), m64.data(), v64.data(), 1);
    for (int64_t i = 0; i < count; ++i) {
      const double scaled = 0.25 * g[i];
      p[i] *= 1 - 1e-2 * 0.1;
      m[i] = 0.9 * m[i] + (1 - 0.9) * scaled;
      v[i] = 0.95 * v[i] + (1 - 0.95) * scaled * scaled;
      const double denominator = std::sqrt(v[i]) / std::sqrt(1 - std::pow(0.95, t)) + 1e-8;
      p[i] -= 1e-2 / (1 - std::pow(0.9, t)) * m[i] / denominator;
    }
  }
  expect_close(p64, p, 1e-13, 1e-14);
  expect_close(m64, m, 1e-13, 1e-15);
  expect_close(v64, v, 1e-13, 1e-15);
  // Five updates of a dozen roundings each; m cancels, so its error is against its terms.
  expect_close(to_doubles(p32), p, 60 * 0x1p-24, 60 * 0x1p-24 * 0.1);
  expect_close(to_doubles(m32), m, 0, 60 * 0x1p-24);
  expect_close(to_doubles(v32), v, 60 * 0x1p-24, 0);
}

TEST(AdamWTest, AGradientOfZeroOnlyDecays) {
  std::vector<float> p{2, -4}, m{0, 0}, v{0, 0};
  const std::vector<float> g{0, 0};
  adamw_update<float>({.learning_rate = 0.5, .weight_decay = 0.5}, g.data(), 2, p.data(), m.data(),
                      v.data(), 1);
  EXPECT_EQ(p, (std::vector<float>{1.5, -3}));
}

TEST(SumOfSquaresTest, IsADoubleSum) {
  for (const int64_t count : {0, 1, 15, 4096, 10000}) {
    const Doubles values = normal_values(count, 1);
    const double found = sum_of_squares<float>(to<float>(values).data(), count, 1);
    EXPECT_NEAR(found, dot(values, values), static_cast<double>(count) * 0x1p-53 * (found + 1));
  }
  const std::vector<float> large(3, 3e38f);
  EXPECT_DOUBLE_EQ(sum_of_squares<float>(large.data(), 3, 2), 3 * double{3e38f} * double{3e38f});
}

TYPED_TEST(ElementTest, ThreadsDoNotChangeABit) {
  using T = TypeParam;
  using A = Accumulator<T>;
  const auto bits = [](const auto& values) {
    Doubles result;
    for (const auto& value : values) {
      if constexpr (std::is_same_v<std::decay_t<decltype(value)>, BFloat16>) {
        result.push_back(static_cast<float>(value));
      } else {
        result.push_back(value);
      }
    }
    return result;
  };
  const Sizes s{2, 333, 50};
  const auto run = [&](int threads) {
    std::vector<Doubles> all;
    for (const bool shared : {false, true}) {
      const auto r = LayerNormProblem(s, shared).template run<T>(threads);
      for (const auto& values : {bits(r.y), bits(r.dx), bits(r.dscale), bits(r.dshift)}) {
        all.push_back(values);
      }
    }
    const auto [y, dx, dweight] = RmsProblem(s, 10).template run<T>(threads);
    for (const auto& values : {bits(y), bits(dx), bits(dweight)}) all.push_back(values);
    const auto residual = to<A>(normal_values(s.count(), 1));
    const auto branch = to<T>(normal_values(s.count(), 2));
    const auto gate = to<A>(normal_values(s.batch * s.dim, 3));
    std::vector<T> dy(s.count()), activation(s.count());
    std::vector<A> dgate(gate.size());
    add_gated_backward<T>(residual.data(), branch.data(), gate.data(), s.dim, s.batch, s.rows,
                          s.dim, dy.data(), dgate.data(), threads);
    gelu_tanh<T>(branch.data(), s.count(), activation.data(), threads);
    for (const auto& values : {bits(dy), bits(dgate), bits(activation)}) all.push_back(values);
    all.push_back({sum_of_squares<A>(residual.data(), s.count(), threads)});
    return all;
  };
  const auto one = run(1);
  EXPECT_EQ(one, run(2));
  EXPECT_EQ(one, run(3));
}

// Narrower instruction sets give the same functions (not the same bits: no fused multiply-add).
TEST(ElementIsaTest, FallbacksAgree) {
  const LayerNormProblem norm({2, 70, 40}, false);
  const RmsProblem rms({2, 70, 40}, 8);
  const auto y = norm.run<float>(1);
  const auto [r, dr, dw] = rms.run<float>(1);
  for (const Isa isa : {Isa::kBaseline, Isa::kAvx2}) {
    limit_isa(isa);
    const auto y2 = norm.run<float>(1);
    const auto [r2, dr2, dw2] = rms.run<float>(1);
    limit_isa(Isa::kAvx512);
    const double bound = 2 * (40.0 / 8 + 16) * 0x1p-24 * 30;
    expect_close(to_doubles(y2.y), to_doubles(y.y), 0, bound);
    expect_close(to_doubles(y2.dx), to_doubles(y.dx), 0, bound);
    expect_close(to_doubles(r2), to_doubles(r), 0, bound);
    expect_close(to_doubles(dr2), to_doubles(dr), 0, bound);
    expect_close(to_doubles(dw2), to_doubles(dw), 0, 200 * 0x1p-24 * 30);
  }
}

}  // namespace
}  // namespace sprocket::kernels
