// The weights that a network starts from, wherever model.weights says they are.
#pragma once

#include <optional>
#include <string>

#include "configs/job.pb.h"
#include "runtime/checkpoint/state.pb.h"

namespace sprocket::runtime {

struct StartWeights {
  std::string path;                      // as the models' loaders take it; empty: none
  std::optional<CheckpointState> state;  // of the run or checkpoint that they are of
};

// model.weights of the job: a run or a checkpoint becomes the folder of its
// weights, of their moving average where it has one. `whose` job it
// is, for messages: "the teacher". Throws InputError for a checkpoint of another architecture, and
// for one of adapters, which are no whole weights.
StartWeights find_start_weights(const config::Job& job, const std::string& whose);

}  // namespace sprocket::runtime
