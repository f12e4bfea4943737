// Floating-point operations of a training step, from the model's structure.
#pragma once

#include <cstdint>

#include "configs/job.pb.h"

namespace sprocket::runtime {

struct StepFlops {
  // As if attention were dense and nothing were recomputed: forward plus twice the forward.
  double dense_equivalent = 0;
  // What the kernels do: the selected share of attention, five products in its backward for two in
  // its forward, and the second forward of activation checkpointing.
  double executed = 0;
};

// Of `samples` videos of `tokens` tokens each, a multiply-add counting two. Pooled and scalar work,
// below a percent, is left out. density: mean share of the selected pairs.
StepFlops step_flops(const config::Job& job, int64_t samples, int64_t tokens, double density);

}  // namespace sprocket::runtime
