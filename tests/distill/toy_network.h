// A small perceptron that predicts velocities in the plane.
#pragma once

#include "models/parameter_store.h"
#include "runtime/distill/recipe.h"

namespace sprocket::testing {

class ToyNetwork : public runtime::Denoiser {
 public:
  explicit ToyNetwork(uint64_t seed);

  at::Tensor predict(const at::Tensor& x, std::span<const double> timesteps,
                     const at::Tensor& text) override;
  models::ParameterStore& parameters() { return parameters_; }
  void copy_from(const ToyNetwork& other);

 private:
  models::ParameterStore parameters_;
};

// Regression onto another network's velocities at noised samples of it: what a student starts from.
void imitate(ToyNetwork& network, runtime::Denoiser& teacher, const at::Tensor& clean, int steps);

}  // namespace sprocket::testing
