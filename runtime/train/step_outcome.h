// What one optimizer step did, for metrics and progress.
#pragma once

#include <cstdint>
#include <vector>

#include "runtime/data/index.h"
#include "runtime/profile/step_parts.h"

namespace sprocket::runtime {

struct StepOutcome {
  double loss = 0;  // mean squared error over all samples of the step; the same on all ranks
  double gradient_norm = 0;  // before clipping
  double learning_rate = 0;
  bool skipped = false;  // the gradient was not finite; nothing was updated
  // The ranks whose own gradients were not finite before they were summed. Asked, for a pass over
  // them, only when the step before was skipped; else empty.
  std::vector<int> non_finite_ranks;
  bool stop_requested = false;  // on some rank
  int64_t own_tokens = 0;       // of this rank, over the step's samples
  int64_t tokens = 0;           // of the whole job
  data::LatentShape shape;      // of the step's videos
  profile::StepParts times;     // of this rank
  // By layer, means over ranks and micro-batches.
  std::vector<double> density;
  std::vector<double> coverage;
  // By layer: executed pairs of the busiest sequence rank by the mean of the sequence ranks, over
  // micro-batches; the mean of the replicas'.
  std::vector<double> imbalance;
  // By layer and head, over ranks and micro-batches; empty without domains, or without a budget.
  std::vector<std::vector<double>> domain_coverage;
  std::vector<std::vector<double>> kept_mass;
};

}  // namespace sprocket::runtime
