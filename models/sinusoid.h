// The sinusoids that time embeddings start from.
#pragma once

#include <ATen/core/Tensor.h>

namespace sprocket::models {

// [cos, sin] of timestep * 10000^(-i / half), i = 0 .. half - 1 with half = features / 2, computed
// in fp64 and rounded to `type`: [B, 2 half]. The timesteps may have any dtype.
at::Tensor sinusoid(const at::Tensor& timestep_B, int features, at::ScalarType type);

}  // namespace sprocket::models
