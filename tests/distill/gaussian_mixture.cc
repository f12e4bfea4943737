#include "tests/distill/gaussian_mixture.h"

#include <cmath>

#include <ATen/TensorOperators.h>
#include <ATen/ops/cdist.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include "base/philox.h"

namespace sprocket::testing {

at::Tensor GaussianMixture::sample(int64_t count, uint64_t seed) const {
  const at::Tensor points = at::empty({count, 2}, at::kFloat);
  const RandomStream normal(seed, 0, 0, RandomPurpose::kTest),
      which(seed, 0, 1, RandomPurpose::kTest);
  normal.normal({points.data_ptr<float>(), static_cast<size_t>(2 * count)});
  auto values = points.accessor<float, 2>();
  for (int64_t i = 0; i < count; ++i) {
    const auto& mean = means_[which.below(i, means_.size())];
    for (int axis = 0; axis < 2; ++axis) {
      values[i][axis] = static_cast<float>(mean[axis] + deviation_ * values[i][axis]);
    }
  }
  return points;
}

at::Tensor GaussianMixture::velocity(const at::Tensor& x, std::span<const double> sigma) const {
  const at::Tensor v = at::empty_like(x);
  const auto from = x.accessor<float, 2>();
  auto into = v.accessor<float, 2>();
  for (int64_t i = 0; i < x.size(0); ++i) {
    const double s = std::max(sigma[i], 1e-6), alpha = 1 - s;
    const double variance = alpha * alpha * deviation_ * deviation_ + s * s;
    std::vector<double> logs;
    double largest = -1e300;
    for (const auto& mean : means_) {
      double square = 0;
      for (int axis = 0; axis < 2; ++axis)
        square += std::pow(from[i][axis] - alpha * mean[axis], 2);
      logs.push_back(-square / (2 * variance));
      largest = std::max(largest, logs.back());
    }
    double total = 0;
    std::array<double, 2> x0{};
    for (size_t k = 0; k < means_.size(); ++k) {
      const double weight = std::exp(logs[k] - largest);
      total += weight;
      for (int axis = 0; axis < 2; ++axis) {
        x0[axis] += weight * (means_[k][axis] + alpha * deviation_ * deviation_ / variance *
                                                    (from[i][axis] - alpha * means_[k][axis]));
      }
    }
    for (int axis = 0; axis < 2; ++axis) {
      const double clean = x0[axis] / total;
      into[i][axis] = static_cast<float>((from[i][axis] - alpha * clean) / s - clean);
    }
  }
  return v;
}

at::Tensor MixtureTeacher::predict(const at::Tensor& x, std::span<const double> timesteps,
                                   const at::Tensor&) {
  std::vector<double> sigma;
  for (const double timestep : timesteps) sigma.push_back(timestep / 1000);
  return mixture_.velocity(x, sigma);
}

double energy_distance(const at::Tensor& a, const at::Tensor& b) {
  const auto mean = [](const at::Tensor& one, const at::Tensor& other) {
    return at::cdist(one.to(at::kDouble), other.to(at::kDouble)).mean().item<double>();
  };
  return 2 * mean(a, b) - mean(a, a) - mean(b, b);
}

}  // namespace sprocket::testing
