// Positions of CogVideoX's video tokens.
#pragma once

#include <vector>

#include <ATen/core/Tensor.h>

#include "models/cogvideox/cogvideox_config.h"
#include "models/rope_tables.h"
#include "parallel/token_layout.h"

namespace sprocket::models {

// What is added to the embedded patches of tokens first .. first + count - 1 of the block order,
// none of the prefix: [count, D], D = config.dim. D/4 features of t, then 3D/8 of w, then 3D/8 of
// h; those of an axis with n features are sin, then cos, of position * 10000^(-i / (n/2)), i = 0 ..
// n/2 - 1, with the position divided by the axis's scale. Computed in fp64, rounded to `dtype`.
at::Tensor sinusoid_positions(const CogVideoXConfig& config, const parallel::TokenLayout& layout,
                              int64_t first, int64_t count, at::ScalarType dtype);

// For all tokens of the range, those of the prefix unturned. D/8 pairs of a head of D channels turn
// with t, 3D/16 with h, 3D/16 with w; D is a multiple of 16. kScaledRope fits the grid of h x w
// tokens, its proportions kept, into base_height x base_width: see fitted_positions.
RopeTables cogvideox_rope(const CogVideoXConfig& config, const parallel::TokenLayout& layout,
                          int64_t first, int64_t count, at::ScalarType dtype);

struct PlanePositions {
  std::vector<double> h, w;
};

// The grid scaled until it fills the base in one direction, its other extent rounded (a half to
// even) and centred, the margin rounded likewise: with start the margin and stop = margin + extent,
// positions are equally spaced from start to stop (n - 1) / n, both included.
PlanePositions fitted_positions(int h, int w, int base_height, int base_width);

}  // namespace sprocket::models
