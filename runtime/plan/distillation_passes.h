// How often a step of distillation evaluates each of its networks.
#pragma once

#include "configs/roles.h"
#include "runtime/plan/step_cost.h"

namespace sprocket::runtime {

// Of one sample, as the recipe of the job draws its noise levels (runtime/distill/tdm.h, dmd2.h):
// means over the draws. The student's evaluations on the way to the level that is drawn are made
// once for a micro-batch and both losses of a step, down to the lowest level of them.
NetworkPasses distillation_passes(const config::Job& job, config::NetworkRole role);

}  // namespace sprocket::runtime
