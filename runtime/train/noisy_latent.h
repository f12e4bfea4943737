// A clip, noise and a timestep as the network's input and target.
#pragma once

#include <span>

#include <ATen/core/Tensor.h>

#include "runtime/data/index.h"
#include "runtime/diffusion/diffusion.h"

namespace sprocket::runtime {

struct NoisyLatent {
  at::Tensor noisy, target;  // [1, C, T, H, W] fp32: x_t, and what the model is to predict
  float timestep = 0;
};

// latent and noise: [C, T, H, W] of `shape`.
NoisyLatent add_noise(const Diffusion& diffusion, std::span<const float> latent,
                      std::span<const float> noise, double timestep,
                      const data::LatentShape& shape);

}  // namespace sprocket::runtime
