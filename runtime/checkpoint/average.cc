#include "runtime/checkpoint/average.h"

#include <fmt/format.h>

#include "base/error.h"

namespace sprocket::runtime {

bool has_average(const CheckpointState& state) { return state.job().training().ema_decay() > 0; }

std::string weights_part(const CheckpointState& state) {
  return has_average(state) ? kAveragePart : "model";
}

void check_average(const std::string& checkpoint_path, const CheckpointState& state,
                   const config::Job& job) {
  if (job.training().ema_decay() == 0 || has_average(state)) return;
  throw InputError(
      fmt::format("{}: has no moving average of the weights, and training.ema_decay is {}; go on "
                  "with training.ema_decay: 0, or start a new run with model.weights: \"{}\"",
                  checkpoint_path, job.training().ema_decay(), checkpoint_path));
}

}  // namespace sprocket::runtime
