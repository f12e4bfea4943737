#include "runtime/train/ema.h"

#include <ATen/TensorOperators.h>

namespace sprocket::runtime {

Ema::Ema(models::ParameterStore& parameters, double decay)
    : parameters_(parameters),
      decay_(decay),
      average_(parameters.flat_parameters().detach().clone()) {}

void Ema::update() { average_.lerp_(parameters_.flat_parameters(), 1 - decay_); }

void Ema::swap() {
  const at::Tensor weights = parameters_.flat_parameters().clone();
  parameters_.flat_parameters().copy_(average_);
  average_.copy_(weights);
}

}  // namespace sprocket::runtime
