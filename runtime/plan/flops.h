// Floating-point operations of a training step, from the model's structure. A multiply-add counts
// two; pooled and scalar work, below a percent, is left out.
#pragma once

#include <cstdint>

#include "configs/job.pb.h"

namespace sprocket::runtime {

// Forward of one sample, of which a rank holds `tokens` tokens of the sequence; where the text is
// none of it (WAN), all of the text too.
struct ForwardFlops {
  double block_linear = 0;           // linear layers of one transformer block
  double block_cross_attention = 0;  // its attention to a text outside the sequence
  double edges = 0;                  // embeddings and head
};
ForwardFlops forward_flops(const config::Job& job, double tokens);

struct StepFlops {
  // As if attention were dense and nothing were recomputed: forward plus twice the forward, which
  // is one of the linear layers beside adapters: frozen weights have no gradients.
  double dense_equivalent = 0;
  // What the kernels do: the selected share of attention, five products in its backward for two in
  // its forward, and the second forward of activation checkpointing.
  double executed = 0;
};

// Of `samples` sequences of `tokens` tokens each. density: mean share of the selected pairs.
StepFlops step_flops(const config::Job& job, int64_t samples, int64_t tokens, double density);

// The same of one forward, without a backward.
StepFlops forward_step_flops(const config::Job& job, int64_t samples, int64_t tokens,
                             double density);

}  // namespace sprocket::runtime
