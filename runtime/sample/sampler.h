// Integrates the flow from noise to a latent video, every sequence rank its own tokens.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "runtime/data/index.h"
#include "runtime/train/network.h"

namespace sprocket::runtime {

struct SampleRequest {
  data::LatentShape shape;
  std::vector<float> text;  // embedding [tokens, dim]
  uint64_t seed = 0;
  uint64_t number = 0;          // of the video, in the noise's key
  int64_t step = 0;             // of training: selects the attention of the schedules
  std::vector<float> negative;  // embedding; guidance leads away from it; empty: the empty text
};

// Around every evaluation of the network; each may be empty.
struct EvaluationHooks {
  std::function<void()> before;
  std::function<void(int done)> after;
  // Asked after it; true, on all ranks of the sequence group: the latent is left as it is.
  std::function<bool()> stop;
};

// The sampler of `sampling` over its noise levels; v = v_negative + guidance (v_text - v_negative),
// both in one batch, unless guidance is 1. Collective over the sequence group; returns the whole
// latent [C, T, H, W], still normalised, on each of its ranks. All noise is a function of (seed,
// number, step) alone.
std::vector<float> sample_latent(Network& network, const config::Sampling& sampling,
                                 const SampleRequest& request, const EvaluationHooks& hooks = {});

}  // namespace sprocket::runtime
