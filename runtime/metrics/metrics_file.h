// metrics.jsonl: one JSON object a line, for one optimizer step each (docs/metrics.md).
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include <c10/core/Device.h>

#include "runtime/metrics/json_lines.h"
#include "runtime/plan/flops.h"
#include "runtime/train/step_outcome.h"

namespace sprocket::runtime {

// Of the job up to now, beside what a step came to.
struct StepTotals {
  int64_t skipped_steps = 0;
  int64_t bad_samples = 0;
  int64_t failed_saves = 0;
  double checkpoint_stall_seconds = 0;  // since the line before
};

class MetricsFile {
 public:
  // Keeps the lines of steps before `first_step` of a file that is there and drops the others: they
  // are about to be made again. The rank's tensors live on `device`. Throws OutputError.
  MetricsFile(const std::string& path, int64_t first_step, const at::Device& device)
      : lines_(path, first_step), device_(device) {}

  // `step` is the number of steps done, from 1. Written through at once. Returns the line. Throws
  // OutputError.
  nlohmann::json write(int64_t step, const StepOutcome& outcome, const StepFlops& flops,
                       const StepTotals& totals);

 private:
  JsonLines lines_;
  at::Device device_;
};

}  // namespace sprocket::runtime
