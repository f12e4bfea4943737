#include "runtime/train/noisy_latent.h"

#include <ATen/ops/from_blob.h>

namespace sprocket::runtime {

NoisyLatent add_noise(const Diffusion& diffusion, std::span<const float> latent,
                      std::span<const float> noise, double timestep,
                      const data::LatentShape& shape) {
  const std::vector<int64_t> sizes = {1, shape.c, shape.t, shape.h, shape.w};
  const auto x0 = at::from_blob(const_cast<float*>(latent.data()), sizes, at::kFloat);
  const auto eps = at::from_blob(const_cast<float*>(noise.data()), sizes, at::kFloat);
  const std::vector<Level> level = {diffusion.level(timestep)};
  return {noised(x0, eps, level), diffusion.prediction(x0, eps, level),
          static_cast<float>(timestep)};
}

}  // namespace sprocket::runtime
