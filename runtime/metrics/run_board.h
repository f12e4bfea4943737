// What a training run shows in TensorBoard (docs/metrics.md).
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "runtime/media/animated_png.h"
#include "runtime/metrics/tensorboard/event_file.h"

namespace sprocket::runtime {

// The curves of a line of metrics.jsonl: every number of its own, and of what has values by layer
// their mean, min and max and each layer's. Values by head make no curves.
std::vector<tensorboard::Scalar> metrics_curves(const nlohmann::json& line);

class RunBoard {
 public:
  // An event file in `folder` for the steps after `last_step`, which the run has done; -1: it
  // starts anew, and also validates before its first step. Throws OutputError, like all below.
  RunBoard(const std::string& folder, int64_t last_step) : events_(folder, last_step + 1) {}

  // A line of metrics.jsonl.
  void write_metrics(const nlohmann::json& line);
  // A line of validation.jsonl.
  void write_validation(const nlohmann::json& line);
  // The `number`th video of a step. `prompt` is shown beside it.
  void write_sample(int64_t step, size_t number, const std::string& prompt,
                    const media::AnimatedPng& animation);
  void write_sample_psnr(int64_t step, size_t number, double psnr);

 private:
  tensorboard::EventFile events_;
};

}  // namespace sprocket::runtime
