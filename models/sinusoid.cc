#include "models/sinusoid.h"

#include <cmath>

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cos.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/sin.h>

namespace sprocket::models {

at::Tensor sinusoid(const at::Tensor& timestep_B, int features, at::ScalarType type) {
  const int64_t half = features / 2;
  const at::Tensor index = at::arange(half, timestep_B.options().dtype(at::kDouble));
  const at::Tensor frequencies = at::exp(index * (-std::log(10000.0) / static_cast<double>(half)));
  const at::Tensor angles = timestep_B.to(at::kDouble).unsqueeze(1) * frequencies;
  return at::cat({at::cos(angles), at::sin(angles)}, 1).to(type);
}

}  // namespace sprocket::models
