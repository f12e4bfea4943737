// Conversions against the definitions x = alpha x0 + sigma eps and v, in fp64, edges included.
#include "runtime/diffusion/diffusion.h"

#include <gtest/gtest.h>

#include <cmath>

#include <ATen/TensorOperators.h>
#include <ATen/ops/tensor.h>

#include "base/error.h"

namespace sprocket::runtime {
namespace {

constexpr double kX0 = 0.7, kEps = -1.3;

double value(const at::Tensor& tensor) { return tensor.item<double>(); }
at::Tensor of(double number) { return at::tensor({number}, at::kDouble); }

TEST(Diffusion, FlowIsRecoveredFromItsVelocity) {
  const Diffusion flow = Diffusion::flow();
  for (const double timestep : {0.0, 1.0, 124.0, 500.0, 874.0, 999.0, 1000.0}) {
    const double sigma = timestep / 1000;
    const std::vector<Level> levels = {flow.level(timestep)};
    EXPECT_DOUBLE_EQ(levels[0].sigma, sigma);
    const at::Tensor x = of((1 - sigma) * kX0 + sigma * kEps), v = of(kEps - kX0);
    EXPECT_NEAR(value(flow.x0(x, v, levels)), kX0, 1e-15);
    EXPECT_NEAR(value(flow.eps(x, v, levels)), kEps, 1e-15);
    EXPECT_NEAR(value(noised(of(kX0), of(kEps), levels)), value(x), 1e-15);
    EXPECT_NEAR(value(flow.prediction(of(kX0), of(kEps), levels)), value(v), 1e-15);
    if (sigma > 0) {
      EXPECT_NEAR(value(flow.prediction_of(x, of(kX0), levels)), kEps - kX0, 1e-15 / sigma);
    }
  }
}

TEST(Diffusion, VPredictionIsRecovered) {
  // The last row has no signal at all, as with a terminal signal-to-noise ratio of zero.
  const std::vector<double> table = {0.999, 0.7, 0.25, 0.01, 0};
  const Diffusion diffusion = Diffusion::v_prediction(table);
  for (size_t t = 0; t < table.size(); ++t) {
    const double alpha = std::sqrt(table[t]), sigma = std::sqrt(1 - table[t]);
    const std::vector<Level> levels = {diffusion.level(static_cast<double>(t))};
    const at::Tensor x = of(alpha * kX0 + sigma * kEps), v = of(alpha * kEps - sigma * kX0);
    EXPECT_NEAR(value(diffusion.x0(x, v, levels)), kX0, 1e-15);
    EXPECT_NEAR(value(diffusion.eps(x, v, levels)), kEps, 1e-15);
    EXPECT_NEAR(value(diffusion.prediction(of(kX0), of(kEps), levels)), value(v), 1e-15);
    EXPECT_NEAR(value(diffusion.prediction_of(x, of(kX0), levels)), value(v), 1e-13);
  }
}

TEST(Diffusion, RenoisingGivesTheLevelAskedFor) {
  const Diffusion flow = Diffusion::flow();
  // From a level to one that is noisier, from the clean video, and to its own level.
  for (const auto& [from, to] :
       {std::pair{250.0, 700.0}, {0.0, 1.0}, {0.0, 980.0}, {875.0, 875.0}}) {
    const std::vector<Level> a = {flow.level(from)}, b = {flow.level(to)};
    const double ratio = b[0].alpha / a[0].alpha;
    const double fresh =
        std::sqrt(std::max(b[0].sigma * b[0].sigma - std::pow(ratio * a[0].sigma, 2), 1e-8));
    EXPECT_NEAR(value(renoised(of(kX0), of(kEps), a, b)), ratio * kX0 + fresh * kEps, 1e-15);
    // The variance of both noises together.
    if (to > from) {
      EXPECT_NEAR(std::pow(ratio * a[0].sigma, 2) + fresh * fresh, b[0].sigma * b[0].sigma, 1e-15);
    }
  }
}

TEST(Diffusion, LevelsAreThoseOfTheSamples) {
  const Diffusion flow = Diffusion::flow();
  const std::vector<Level> levels = {flow.level(100), flow.level(900)};
  const at::Tensor x = at::tensor({1.0, 2.0, 3.0, 4.0}, at::kDouble).view({2, 2});
  const at::Tensor x0 = flow.x0(x, x, levels);
  EXPECT_DOUBLE_EQ(value(x0.select(0, 0).select(0, 1)), 2 - 0.1 * 2);
  EXPECT_DOUBLE_EQ(value(x0.select(0, 1).select(0, 0)), 3 - 0.9 * 3);
  EXPECT_THROW(flow.level(1000.5), InternalError);
  EXPECT_THROW(flow.x0(x, x, std::vector<Level>{levels[0]}), InternalError);
}

}  // namespace
}  // namespace sprocket::runtime
