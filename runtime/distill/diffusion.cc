#include "runtime/distill/diffusion.h"

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

std::vector<double> alphas(std::span<const Level> levels) {
  return each(levels, [](const Level& level) { return level.alpha; });
}

std::vector<double> sigmas(std::span<const Level> levels) {
  return each(levels, [](const Level& level) { return level.sigma; });
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

Diffusion Diffusion::flow() { return {}; }

Diffusion Diffusion::v_prediction(std::vector<double> alphas_cumprod) {
  SPROCKET_CHECK(!alphas_cumprod.empty(), "a table of no timesteps");
  Diffusion diffusion;
  diffusion.alphas_cumprod_ = std::move(alphas_cumprod);
  return diffusion;
}

Level Diffusion::level(double timestep) const {
  SPROCKET_CHECK(timestep >= 0 && timestep <= kTimesteps, "timestep {}", timestep);
  if (alphas_cumprod_.empty()) return {1 - timestep / kTimesteps, timestep / kTimesteps};
  const auto row = std::min<int64_t>(std::llround(timestep), std::ssize(alphas_cumprod_) - 1);
  return {std::sqrt(alphas_cumprod_[row]), std::sqrt(1 - alphas_cumprod_[row])};
}

at::Tensor Diffusion::x0(const at::Tensor& x, const at::Tensor& v,
                         std::span<const Level> levels) const {
  const at::Tensor noise = scaled(v, sigmas(levels));
  return (alphas_cumprod_.empty() ? x : scaled(x, alphas(levels))) - noise;
}

at::Tensor Diffusion::eps(const at::Tensor& x, const at::Tensor& v,
                          std::span<const Level> levels) const {
  const at::Tensor signal = scaled(v, alphas(levels));
  return (alphas_cumprod_.empty() ? x : scaled(x, sigmas(levels))) + signal;
}

at::Tensor Diffusion::prediction_of(const at::Tensor& x, const at::Tensor& x0,
                                    std::span<const Level> levels) const {
  const at::Tensor signal = alphas_cumprod_.empty() ? x : scaled(x, alphas(levels));
  return scaled(signal - x0, each(levels, [](const Level& level) { return 1 / level.sigma; }));
}

at::Tensor noised(const at::Tensor& x0, const at::Tensor& eps, std::span<const Level> levels) {
  return scaled(x0, alphas(levels)) + scaled(eps, sigmas(levels));
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
