// The moving average of the weights (training.ema_decay) in a checkpoint: its part `ema`.
#pragma once

#include <string>

#include "configs/job.pb.h"
#include "runtime/checkpoint/state.pb.h"

namespace sprocket::runtime {

inline constexpr char kAveragePart[] = "ema";

bool has_average(const CheckpointState& state);

// The part that a network is to be used with, which is the average where there is one.
std::string weights_part(const CheckpointState& state);

// Throws InputError when the job goes on with an average and the checkpoint has none.
void check_average(const std::string& checkpoint_path, const CheckpointState& state,
                   const config::Job& job);

}  // namespace sprocket::runtime
