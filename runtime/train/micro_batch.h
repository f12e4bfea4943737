// Samples as the model takes them, and one pass over them: what a training step is made of.
#pragma once

#include <cstdint>
#include <span>

#include <ATen/core/Tensor.h>

#include "configs/job.pb.h"
#include "runtime/data/latent_dataset.h"
#include "runtime/train/flow.h"
#include "runtime/train/network.h"

namespace sprocket::runtime {

// B samples of one shape, the same on all ranks of a sequence group; fp32.
struct MicroBatch {
  data::LatentShape shape;
  at::Tensor noisy_BCTHW;
  at::Tensor target_BCTHW;  // what the model is to predict
  at::Tensor timestep_B;
  at::Tensor text_BND;
};

// samples[i], all of one shape, under the noise, the noise level and the text dropout of keys[i].
MicroBatch make_micro_batch(const config::Job& job, const data::LatentShape& shape,
                            std::span<const data::Sample> samples, std::span<const SampleKey> keys);

struct PassOutcome {
  double loss = 0;          // this rank's tokens' share of it
  at::Tensor velocity_BLF;  // of this rank's tokens, detached
};

// Forward and backward with the attention of step `step`: adds to the gradients of the network's
// parameters this rank's share of those of the mean squared error over all elements of `samples`
// samples. The shares of all ranks add up to the loss and its gradients. `selections` as in
// Network::velocity. Collective over the sequence group.
PassOutcome forward_backward(Network& network, const MicroBatch& batch, int64_t step,
                             int64_t samples, std::span<const parallel::Selection> selections = {});

}  // namespace sprocket::runtime
