// A mixture of Gaussians in the plane: samples, and the velocity of its flow in closed form.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "runtime/distill/recipe.h"

namespace sprocket::testing {

class GaussianMixture {
 public:
  // Equal weights; one standard deviation.
  GaussianMixture(std::vector<std::array<double, 2>> means, double deviation)
      : means_(std::move(means)), deviation_(deviation) {}

  // [count, 2], fp32.
  at::Tensor sample(int64_t count, uint64_t seed) const;
  // E[eps - x0 | x] for x [B, 2] at noise levels sigma.
  at::Tensor velocity(const at::Tensor& x, std::span<const double> sigma) const;

 private:
  std::vector<std::array<double, 2>> means_;
  double deviation_;
};

// The mixture's exact velocity as a frozen network.
class MixtureTeacher : public runtime::Denoiser {
 public:
  explicit MixtureTeacher(GaussianMixture mixture) : mixture_(std::move(mixture)) {}
  at::Tensor predict(const at::Tensor& x, std::span<const double> timesteps,
                     const at::Tensor& text) override;

 private:
  const GaussianMixture mixture_;
};

// 2 E|a - b| - E|a - a'| - E|b - b'|: zero for equal distributions (Szekely and Rizzo, 2013).
double energy_distance(const at::Tensor& a, const at::Tensor& b);

}  // namespace sprocket::testing
