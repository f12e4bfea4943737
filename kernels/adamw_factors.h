// The numbers of an AdamW update that all elements share, made once in double. For host and device
// code.
#pragma once

#include <cmath>

#include "kernels/element_parameters.h"

namespace sprocket::kernels {

//   g = scale * gradient;  m += one_minus_beta1 (g - m);  v = beta2 v + one_minus_beta2 g^2
//   p = decay p - rate m / (sqrt(v) inverse_root + eps)
template <class A>
struct AdamWFactors {
  A decay, scale, one_minus_beta1, beta2, one_minus_beta2, inverse_root, eps, rate;
};

// step.step >= 1.
template <class A>
AdamWFactors<A> adamw_factors(const AdamWStep& step) {
  const double exponent = static_cast<double>(step.step);
  return {static_cast<A>(1 - step.learning_rate * step.weight_decay),
          static_cast<A>(step.gradient_scale),
          static_cast<A>(1 - step.beta1),
          static_cast<A>(step.beta2),
          static_cast<A>(1 - step.beta2),
          static_cast<A>(1 / std::sqrt(1 - std::pow(step.beta2, exponent))),
          static_cast<A>(step.eps),
          static_cast<A>(step.learning_rate / (1 - std::pow(step.beta1, exponent)))};
}

}  // namespace sprocket::kernels
