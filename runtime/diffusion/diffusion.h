// The two forms of diffusion that models are trained in, and what can be read off a prediction.
//
//   x_t = alpha x0 + sigma eps
//
//   flow matching   alpha = 1 - sigma, sigma = t / 1000;   the model predicts v = eps - x0
//   v-prediction    alpha^2 + sigma^2 = 1, from a table;   v = alpha eps - sigma x0
//                                                          (arXiv 2202.00512)
//
// Levels are fp64; tensors keep their dtype. The first dimension is the sample's.
#pragma once

#include <span>
#include <vector>

#include <ATen/core/Tensor.h>

namespace sprocket::runtime {

struct Level {
  double alpha = 1, sigma = 0;

  // alpha^2 = signal_power.
  static Level of_power(double signal_power);
};

class Diffusion {
 public:
  // Flow matching, without a shift: sigma = t / 1000.
  static Diffusion flow();
  // alphas_cumprod[t] = alpha^2 of timestep t; at least one.
  static Diffusion v_prediction(std::vector<double> alphas_cumprod);

  // timestep in [0, 1000]; of v-prediction it is rounded to the nearest row of the table.
  Level level(double timestep) const;

  // A quantity as x times the one and v times the other.
  struct Weights {
    double x = 0, v = 0;
  };
  Weights x0_weights(const Level& level) const;
  Weights eps_weights(const Level& level) const;

  // One level for each sample of the tensors.
  at::Tensor x0(const at::Tensor& x, const at::Tensor& v, std::span<const Level> levels) const;
  at::Tensor eps(const at::Tensor& x, const at::Tensor& v, std::span<const Level> levels) const;
  // v: what the model is to predict.
  at::Tensor prediction(const at::Tensor& x0, const at::Tensor& eps,
                        std::span<const Level> levels) const;
  // What a model would have to predict at x for its x0 to be this one; sigma > 0.
  at::Tensor prediction_of(const at::Tensor& x, const at::Tensor& x0,
                           std::span<const Level> levels) const;

 private:
  bool is_flow() const { return alphas_cumprod_.empty(); }

  std::vector<double> alphas_cumprod_;  // empty: flow
};

// alpha x0 + sigma eps.
at::Tensor noised(const at::Tensor& x0, const at::Tensor& eps, std::span<const Level> levels);

// From a video at level `from` to one at the noisier level `to`, with fresh noise z:
// x_to = r x_from + sqrt(max(sigma_to^2 - (r sigma_from)^2, 1e-8)) z,  r = alpha_to / alpha_from.
at::Tensor renoised(const at::Tensor& x, const at::Tensor& z, std::span<const Level> from,
                    std::span<const Level> to);

// x times one number for each sample.
at::Tensor scaled(const at::Tensor& x, std::span<const double> factors);

}  // namespace sprocket::runtime
