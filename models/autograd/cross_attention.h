// Attention of the video tokens to the text tokens, on every rank for its own tokens.
#pragma once

#include <ATen/core/Tensor.h>

#include "models/autograd/op_scope.h"

namespace sprocket::models {

// q_BLHD: [B, L, H, D], k_BSHD and v_BSHD: [B, S, H, D], all T; scale 1 / sqrt(D). Every query sees
// all S keys. Returns [B, L, H, D] in T. L may be 0.
at::Tensor cross_attention(const at::Tensor& q_BLHD, const at::Tensor& k_BSHD,
                           const at::Tensor& v_BSHD, const OpContext& op);

}  // namespace sprocket::models
