// The elementwise parts of a transformer block, each one autograd function that saves only its
// inputs and per-row statistics.
#pragma once

#include <ATen/core/Tensor.h>

#include "models/autograd/op_scope.h"
#include "models/rope_tables.h"

namespace sprocket::models {

// h = (x - mean) / sqrt(variance + eps) * (1 + scale) + shift, rows over D, in A; h is rounded to
// `type`. x_BLD, shift_BD and scale_BD are A.
at::Tensor layer_norm_modulate(const at::Tensor& x_BLD, const at::Tensor& shift_BD,
                               const at::Tensor& scale_BD, double eps, at::ScalarType type,
                               const OpContext& op);

// h = (x - mean) / sqrt(variance + eps) * scale + shift, everything as above.
at::Tensor layer_norm_scaled(const at::Tensor& x_BLD, const at::Tensor& shift_BD,
                             const at::Tensor& scale_BD, double eps, at::ScalarType type,
                             const OpContext& op);

// h = (x - mean) / sqrt(variance + eps) * weight + bias; weight and bias [D], everything as above.
at::Tensor layer_norm_affine(const at::Tensor& x_BLD, const at::Tensor& weight_D,
                             const at::Tensor& bias_D, double eps, at::ScalarType type,
                             const OpContext& op);

// y = x / sqrt(mean of squares over D + eps) * weight, computed in A, split into heads, then, when
// rope is not null, every adjacent pair (x1, x2) of a head turned to (x1 cos - x2 sin,
// x1 sin + x2 cos). x_BLD is T, weight_D and the tables [L, D/H/2] A; y is T, [B, L, H, D/H],
// rounded once.
at::Tensor rms_norm_heads(const at::Tensor& x_BLD, const at::Tensor& weight_D,
                          const RopeTables* rope, int heads, double eps, const OpContext& op);

// x + y * gate in A. x_BLD is A, y_BLD is T, gate_BD is A.
at::Tensor gated_residual(const at::Tensor& x_BLD, const at::Tensor& y_BLD,
                          const at::Tensor& gate_BD, const OpContext& op);

// x + y in A; x_BLD is A, y_BLD is T.
at::Tensor residual(const at::Tensor& x_BLD, const at::Tensor& y_BLD, const OpContext& op);

}  // namespace sprocket::models
