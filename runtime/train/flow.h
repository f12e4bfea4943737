// What training draws, without tensors: the noise levels of flow matching and where all random
// numbers of a sample come from.
//
//   x_s = (1 - s) x0 + s noise,   the model predicts noise - x0,   its timestep is 1000 s
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "configs/job.pb.h"

namespace sprocket::runtime {

// Highest timestep; the model's time input of noise level s is kTimesteps * s.
inline constexpr double kTimesteps = 1000;

// w(s) = shift s / (1 + (shift - 1) s). s in [0, 1], shift > 0.
double shift_level(double s, double shift);

// Keys of the random numbers of one training sample. `index` counts the samples of the whole job,
// so that the numbers do not depend on ranks, micro-batches or where a job was resumed.
struct SampleKey {
  uint64_t seed = 0;
  int64_t step = 0;
  int64_t index = 0;
};

// The shifted noise level of a sample, in (0, 1).
double draw_level(const config::FlowMatching& flow, const SampleKey& key);

// A whole number of 0 .. count - 1, all equally likely, from the random numbers of draw_level.
int64_t draw_index(int64_t count, const SampleKey& key);

// Standard normal noise of a whole latent [C, T, H, W], in its raster order.
std::vector<float> draw_noise(int64_t elements, const SampleKey& key);

// Whether the sample is trained with an empty text.
bool drops_text(double text_dropout, const SampleKey& key);

// Of the optimizer step `step` (0 is the first): linear over warmup_steps (the first step already
// has 1/warmup_steps of the peak), then constant, or along a half cosine that reaches
// final_fraction * peak at the last step, steps - 1.
double learning_rate(const config::Optimizer& optimizer, int64_t step, int64_t steps);

}  // namespace sprocket::runtime
