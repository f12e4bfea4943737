#include "runtime/train/noisy_latent.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/from_blob.h>

#include "runtime/train/flow.h"

namespace sprocket::runtime {

NoisyLatent add_noise(std::span<const float> latent, std::span<const float> noise, double level,
                      const data::LatentShape& shape) {
  const std::vector<int64_t> sizes = {1, shape.c, shape.t, shape.h, shape.w};
  const auto x0 = at::from_blob(const_cast<float*>(latent.data()), sizes, at::kFloat);
  const auto eps = at::from_blob(const_cast<float*>(noise.data()), sizes, at::kFloat);
  return {x0 * (1 - level) + eps * level, eps - x0, static_cast<float>(kTimesteps * level)};
}

}  // namespace sprocket::runtime
