// The form of diffusion that a job's model learns, by model.family: flow matching, or DDPM with
// v-prediction; and the timesteps that it is trained at.
#pragma once

#include <vector>

#include "configs/job.pb.h"
#include "runtime/diffusion/diffusion.h"
#include "runtime/train/flow.h"

namespace sprocket::runtime {

Diffusion job_diffusion(const config::Job& job);

// abar of the 1000 timesteps (ddpm_signal_powers).
std::vector<double> signal_powers(const config::Ddpm& ddpm);

// The timestep of a training sample. Of flow matching 1000 times draw_level; of DDPM a whole number
// of 0 .. 999, all equally likely.
double draw_timestep(const config::Job& job, const SampleKey& key);

// The timestep of number `level` of training.validation.levels: the range of what is drawn evenly,
// before a shift, is cut into as many parts, and this is the middle of one.
double validation_timestep(const config::Job& job, int level);

}  // namespace sprocket::runtime
