// Rotary position tables of a rank's tokens, for any split of a head among the axes.
#pragma once

#include <array>
#include <vector>

#include <ATen/core/Tensor.h>

#include "parallel/token_layout.h"

namespace sprocket::models {

// Both [tokens, D/2], contiguous.
struct RopeTables {
  at::Tensor cos;
  at::Tensor sin;
};

// How one axis (t, h or w) turns its pairs: pair i of `pairs` of a token at index p of the grid by
// the angle positions[p] * 10000^(-i / pairs).
struct RotaryAxis {
  int pairs = 0;
  std::vector<double> positions;
};

// For tokens first .. first + count - 1 of the block order; the pairs of a head are those of t,
// then of h, then of w. Tokens of the prefix do not turn: cos 1, sin 0. Angles are float64, the
// tables are rounded to `dtype` (kFloat or kDouble).
RopeTables rope_tables(const parallel::TokenLayout& layout, int64_t first, int64_t count,
                       const std::array<RotaryAxis, 3>& axes, at::ScalarType dtype);

// 0, 1, .., count - 1.
std::vector<double> whole_positions(int count);

}  // namespace sprocket::models
