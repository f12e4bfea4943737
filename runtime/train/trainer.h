// One optimizer step of flow-matching training on this rank's share of the tokens.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "runtime/data/latent_dataset.h"
#include "runtime/data/sample_order.h"
#include "runtime/recording/step_collector.h"
#include "runtime/train/ema.h"
#include "runtime/train/micro_batch.h"
#include "runtime/train/network.h"
#include "runtime/train/optimizer.h"
#include "runtime/train/step_outcome.h"

namespace sprocket::runtime {

class Trainer {
 public:
  // All must outlive the trainer; `ema` may be null.
  Trainer(Network& network, Optimizer& optimizer, Ema* ema, data::LatentDataset& data,
          StepCollector& collector);

  // Step `step` (from 0) of the job, which the collector records or not. Collective over the world.
  // `stop` may be null. Samples, noise
  // and noise levels are functions of the seeds, the step and the sample's number alone. Throws
  // NonFiniteError (an AgreedError) when the loss is not finite: the weights are those before.
  StepOutcome step(int64_t step, const std::atomic<bool>* stop, bool recorded);

 private:
  MicroBatch load(int64_t step, int64_t micro);
  bool reduce(StepOutcome& outcome, double local_sum, bool stop);
  std::vector<int> ranks_with_non_finite_gradients();

  Network& network_;
  Optimizer& optimizer_;
  Ema* ema_;
  data::LatentDataset& data_;
  data::SampleOrder order_;
  StepCollector& collector_;
  bool skipped_before_ = false;
};

}  // namespace sprocket::runtime
