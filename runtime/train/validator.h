// The loss on held-out clips at fixed noise levels with fixed noise: a number that two runs can be
// compared by.
#pragma once

#include <cstdint>
#include <vector>

#include "runtime/data/latent_dataset.h"
#include "runtime/diffusion/diffusion.h"
#include "runtime/train/network.h"

namespace sprocket::runtime {

struct ValidationLoss {
  double mean = 0;               // over clips, levels and draws
  std::vector<double> by_level;  // ascending noise
};

class Validator {
 public:
  // All references must outlive the validator.
  Validator(Network& network, data::LatentDataset& data);

  // Mean squared errors of the velocity, with the attention of step `step`. Every clip is taken at
  // each of the job's noise levels with each of its draws, which depend on training.validation and
  // the clip's number alone: not on the step, the ranks or the training's seeds. Captions are
  // kept. The replicas share the work. Collective over the world. Throws InputError for a bad
  // sample.
  ValidationLoss run(int64_t step);

 private:
  // Sum of squared errors of the own tokens, by the number of elements.
  double own_error(const data::Sample& sample, double timestep, int64_t number, int64_t step);

  Network& network_;
  data::LatentDataset& data_;
  const Diffusion diffusion_;
};

}  // namespace sprocket::runtime
