// Between a latent video and the transformer's tokens.
//
// B batch, C latent channels, T H W latent cells, L tokens, F = C * pt * ph * pw patch features.
#pragma once

#include <ATen/core/Tensor.h>

#include "models/patch.h"
#include "parallel/token_layout.h"

namespace sprocket::models {

// Order of a token's features, slowest first.
enum class FeatureOrder {
  kChannelFirst,  // (c, pt, ph, pw): every model's input, the order of a Conv3d weight
  kChannelLast,   // (pt, ph, pw, c)
};

// The token grid of a latent of [.., T, H, W] cells. Throws InputError when the patch does not
// divide it.
parallel::Grid token_grid(int64_t t, int64_t h, int64_t w, const Patch& patch);

// latent_BCTHW -> tokens first .. first + count - 1 of the layout's block order, none of its
// prefix: [B, count, F], contiguous, same dtype. Differentiable.
at::Tensor patchify_tokens(const at::Tensor& latent_BCTHW, const parallel::TokenLayout& layout,
                           const Patch& patch, int64_t first, int64_t count,
                           FeatureOrder order = FeatureOrder::kChannelFirst);

// All tokens of the video in block order, [B, L, F] -> latent [B, C, T, H, W], contiguous.
at::Tensor unpatchify_tokens(const at::Tensor& tokens_BLF, const parallel::TokenLayout& layout,
                             const Patch& patch, FeatureOrder order = FeatureOrder::kChannelLast);

}  // namespace sprocket::models
