// A clip, noise and a noise level as the network's input and target.
#pragma once

#include <span>

#include <ATen/core/Tensor.h>

#include "runtime/data/index.h"

namespace sprocket::runtime {

struct NoisyLatent {
  at::Tensor noisy, target;  // [1, C, T, H, W] fp32; (1 - s) x0 + s noise, and noise - x0
  float timestep = 0;
};

// latent and noise: [C, T, H, W] of `shape`.
NoisyLatent add_noise(std::span<const float> latent, std::span<const float> noise, double level,
                      const data::LatentShape& shape);

}  // namespace sprocket::runtime
