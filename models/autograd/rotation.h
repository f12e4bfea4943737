// Rotary positions on heads that are normed elsewhere.
#pragma once

#include <ATen/core/Tensor.h>

#include "models/autograd/op_scope.h"
#include "models/rope_tables.h"

namespace sprocket::models {

// Every adjacent pair (x1, x2) of a head turned to (x1 cos - x2 sin, x1 sin + x2 cos) in A, then
// rounded to `type`. x_BLHD and the tables [L, D/2] are A. Saves the tables alone.
at::Tensor rotate_heads(const at::Tensor& x_BLHD, const RopeTables& rope, at::ScalarType type,
                        const OpContext& op);

}  // namespace sprocket::models
