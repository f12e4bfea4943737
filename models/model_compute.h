// How a model computes; no part of what it computes.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/ScalarType.h>

#include "base/timeline.h"

namespace sprocket::models {

struct ModelCompute {
  at::ScalarType dtype = at::kFloat;  // kFloat, kBFloat16 or kDouble
  int threads = 1;
  // Keep only every block's input and run the block again in the backward, with the attention
  // selection of the first run. Bitwise the same gradients.
  bool checkpoint_blocks = false;
};

// What the blocks of a model begin with: with gradients enabled it requires one. Where all that
// comes before the blocks is frozen, a block that is computed again in the backward would otherwise
// not know that its parameters are trained.
inline at::Tensor in_graph(at::Tensor x) {
  return at::GradMode::is_enabled() && !x.requires_grad() ? x.requires_grad_() : x;
}

// The phase of a forward's intervals: kForward with gradients enabled, otherwise the caller's.
inline Phase forward_phase(Timeline* timeline) {
  if (at::GradMode::is_enabled() || !timeline) return Phase::kForward;
  return timeline->position.phase;
}

}  // namespace sprocket::models
