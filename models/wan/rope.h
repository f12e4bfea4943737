// Rotary position embedding over (t, h, w).
//
// A head of D channels holds D/2 adjacent pairs: with third = D / 6 (floor), D/2 - 2 third pairs
// turn with t, third with h, third with w. Pair i of an axis with P pairs turns by position *
// 10000^(-i/P).
#pragma once

#include <ATen/core/Tensor.h>

#include "models/rope_tables.h"
#include "parallel/token_layout.h"

namespace sprocket::models {

// For tokens first .. first + count - 1 of the block order. Angles are float64 and positions
// global; the tables are rounded to `dtype` (kFloat or kDouble). head_dim: even, at least 6.
RopeTables make_rope_tables(const parallel::TokenLayout& layout, int64_t first, int64_t count,
                            int head_dim, at::ScalarType dtype);

}  // namespace sprocket::models
