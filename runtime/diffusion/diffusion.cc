#include "runtime/diffusion/diffusion.h"

#include <algorithm>
#include <cmath>

#include <ATen/TensorOperators.h>
#include <ATen/ops/tensor.h>

#include "base/error.h"

namespace sprocket::runtime {
namespace {

constexpr double kTimesteps = 1000, kLeastVariance = 1e-8;

template <class Of>
std::vector<double> each(std::span<const Level> levels, Of&& of) {
  std::vector<double> values;
  for (const Level& level : levels) values.push_back(of(level));
  return values;
}

}  // namespace

at::Tensor scaled(const at::Tensor& x, std::span<const double> factors) {
  SPROCKET_CHECK_EQ(x.size(0), std::ssize(factors));
  std::vector<int64_t> shape(x.dim(), 1);
  shape[0] = x.size(0);
  return x * at::tensor(at::ArrayRef<double>(factors.data(), factors.size()), at::kDouble)
                 .view(shape)
                 .to(x.options());
}

Level Level::of_power(double signal_power) {
  return {std::sqrt(signal_power), std::sqrt(1 - signal_power)};
}

Diffusion Diffusion::flow() { return {}; }

Diffusion Diffusion::v_prediction(std::vector<double> alphas_cumprod) {
  SPROCKET_CHECK(!alphas_cumprod.empty(), "a table of no timesteps");
  Diffusion diffusion;
  diffusion.alphas_cumprod_ = std::move(alphas_cumprod);
  return diffusion;
}

Level Diffusion::level(double timestep) const {
  SPROCKET_CHECK(timestep >= 0 && timestep <= kTimesteps, "timestep {}", timestep);
  if (is_flow()) return {1 - timestep / kTimesteps, timestep / kTimesteps};
  const auto row = std::min<int64_t>(std::llround(timestep), std::ssize(alphas_cumprod_) - 1);
  return Level::of_power(alphas_cumprod_[row]);
}

Diffusion::Weights Diffusion::x0_weights(const Level& level) const {
  return {is_flow() ? 1 : level.alpha, -level.sigma};
}

Diffusion::Weights Diffusion::eps_weights(const Level& level) const {
  return {is_flow() ? 1 : level.sigma, level.alpha};
}

at::Tensor Diffusion::x0(const at::Tensor& x, const at::Tensor& v,
                         std::span<const Level> levels) const {
  return scaled(x, each(levels, [&](const Level& level) { return x0_weights(level).x; })) +
         scaled(v, each(levels, [&](const Level& level) { return x0_weights(level).v; }));
}

at::Tensor Diffusion::eps(const at::Tensor& x, const at::Tensor& v,
                          std::span<const Level> levels) const {
  return scaled(x, each(levels, [&](const Level& level) { return eps_weights(level).x; })) +
         scaled(v, each(levels, [&](const Level& level) { return eps_weights(level).v; }));
}

at::Tensor Diffusion::prediction(const at::Tensor& x0, const at::Tensor& eps,
                                 std::span<const Level> levels) const {
  if (is_flow()) return eps - x0;
  return scaled(eps, each(levels, [](const Level& level) { return level.alpha; })) -
         scaled(x0, each(levels, [](const Level& level) { return level.sigma; }));
}

at::Tensor Diffusion::prediction_of(const at::Tensor& x, const at::Tensor& x0,
                                    std::span<const Level> levels) const {
  const at::Tensor signal =
      scaled(x, each(levels, [&](const Level& level) { return x0_weights(level).x; }));
  return scaled(signal - x0, each(levels, [](const Level& level) { return 1 / level.sigma; }));
}

at::Tensor noised(const at::Tensor& x0, const at::Tensor& eps, std::span<const Level> levels) {
  return scaled(x0, each(levels, [](const Level& level) { return level.alpha; })) +
         scaled(eps, each(levels, [](const Level& level) { return level.sigma; }));
}

at::Tensor renoised(const at::Tensor& x, const at::Tensor& z, std::span<const Level> from,
                    std::span<const Level> to) {
  SPROCKET_CHECK_EQ(from.size(), to.size());
  std::vector<double> keep, fresh;
  for (size_t i = 0; i < to.size(); ++i) {
    const double ratio = to[i].alpha / from[i].alpha, old = ratio * from[i].sigma;
    keep.push_back(ratio);
    fresh.push_back(std::sqrt(std::max(to[i].sigma * to[i].sigma - old * old, kLeastVariance)));
  }
  return scaled(x, keep) + scaled(z, fresh);
}

}  // namespace sprocket::runtime
