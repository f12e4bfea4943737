// The samples that `sprocket check-parity` computes on.
#pragma once

#include <string>
#include <vector>

#include "configs/job.pb.h"
#include "runtime/train/micro_batch.h"

namespace sprocket::runtime {

struct ParitySamples {
  // The first micro-batch of step 0 of every data-parallel replica, as training has it.
  std::vector<MicroBatch> replicas;
  std::string source;  // for the report

  int64_t samples() const;
};

// Reads them from data.path when there is a data set; else draws latents and text of data.latent's
// extents from training.seed. Throws ConfigError for data that the job cannot run on, InputError
// for data that cannot be read. `job` is valid, and has one of the two.
ParitySamples load_parity_samples(const config::Job& job);

// The same samples with every noisy latent off by its last bit, up or down as stream `variant`
// says. What the model makes of them differs by rounding errors alone.
ParitySamples with_last_bits_changed(ParitySamples samples, uint64_t variant);

}  // namespace sprocket::runtime
