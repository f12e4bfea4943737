#include "runtime/checkpoint/start_weights.h"

#include <filesystem>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/error.h"
#include "runtime/checkpoint/architecture.h"
#include "runtime/checkpoint/average.h"
#include "runtime/checkpoint/diffusion_check.h"
#include "runtime/checkpoint/run_checkpoints.h"

namespace sprocket::runtime {

namespace fs = std::filesystem;

StartWeights find_start_weights(const config::Job& job, const std::string& whose) {
  const std::string& given = job.model().weights();
  if (given.empty() || !fs::is_directory(given)) return {given, std::nullopt};
  const bool may_be_run =
      fs::exists(fs::path(given) / "state.txtpb") || !list_checkpoints(given).empty();
  if (!may_be_run) return {given, std::nullopt};  // a folder of safetensors
  const std::string path = open_checkpoint(given).path;
  const CheckpointState state = read_state(path);
  const std::vector<std::string> differences = model_differences(state.job(), job);
  if (!differences.empty()) {
    throw InputError(fmt::format("{}: no weights for {}, whose model differs:\n  {}", path, whose,
                                 fmt::join(differences, "\n  ")));
  }
  if (state.job().training().lora().rank() > 0) {
    throw InputError(
        fmt::format("{}: holds adapters alone, expected whole weights for {}; sprocket "
                    "checkpoint export {} --output FILE makes them",
                    path, whose, path));
  }
  warn_of_other_diffusion(path, state.job(), job, whose);
  return {(fs::path(path) / weights_part(state)).string(), state};
}

}  // namespace sprocket::runtime
