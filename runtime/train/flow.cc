#include "runtime/train/flow.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/error.h"
#include "base/philox.h"

namespace sprocket::runtime {
namespace {

RandomStream stream_of(const SampleKey& key, RandomPurpose purpose) {
  return {key.seed, static_cast<uint64_t>(key.step), static_cast<uint64_t>(key.index), purpose};
}

}  // namespace

double shift_level(double s, double shift) { return shift * s / (1 + (shift - 1) * s); }

double draw_level(const config::FlowMatching& flow, const SampleKey& key) {
  const RandomStream stream = stream_of(key, RandomPurpose::kTimestep);
  switch (flow.timestep_sampling()) {
    case config::FlowMatching::UNIFORM:
      return shift_level(stream.uniform(0), flow.shift());
    case config::FlowMatching::LOGIT_NORMAL: {
      float normal = 0;
      stream.normal(std::span(&normal, 1));
      return shift_level(1 / (1 + std::exp(-static_cast<double>(normal))), flow.shift());
    }
  }
  throw InternalError("flow.timestep_sampling has no counterpart");
}

int64_t draw_index(int64_t count, const SampleKey& key) {
  return static_cast<int64_t>(
      stream_of(key, RandomPurpose::kTimestep).below(0, static_cast<uint64_t>(count)));
}

std::vector<float> draw_noise(int64_t elements, const SampleKey& key) {
  std::vector<float> noise(elements);
  stream_of(key, RandomPurpose::kNoise).normal(noise);
  return noise;
}

bool drops_text(double text_dropout, const SampleKey& key) {
  return stream_of(key, RandomPurpose::kTextDropout).uniform(0) < text_dropout;
}

double learning_rate(const config::Optimizer& optimizer, int64_t step, int64_t steps) {
  const double peak = optimizer.learning_rate();
  const int64_t warmup = optimizer.warmup_steps();
  if (step < warmup) return peak * static_cast<double>(step + 1) / static_cast<double>(warmup);
  switch (optimizer.decay()) {
    case config::Optimizer::CONSTANT:
      return peak;
    case config::Optimizer::COSINE: {
      const int64_t span = std::max<int64_t>(1, steps - 1 - warmup);
      const double part =
          std::min(1.0, static_cast<double>(step - warmup) / static_cast<double>(span));
      const double cosine = 0.5 * (1 + std::cos(std::numbers::pi * part));
      return peak * (optimizer.final_fraction() + (1 - optimizer.final_fraction()) * cosine);
    }
  }
  throw InternalError("training.optimizer.decay has no counterpart");
}

}  // namespace sprocket::runtime
