// The ranks' tokens of a video put together.
#pragma once

#include <ATen/core/Tensor.h>

#include "runtime/train/network.h"

namespace sprocket::runtime {

// This rank's tokens [B, count, F], features in `order` -> the latent [B, C, T, H, W] in host
// memory, on every rank of the sequence group. No graph. Collective over the sequence group.
at::Tensor gather_latent(Network& network, const at::Tensor& own_BLF,
                         const data::LatentShape& shape, models::FeatureOrder order);

}  // namespace sprocket::runtime
