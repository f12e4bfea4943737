#include "runtime/jobs/checkpoint_export.h"

#include <filesystem>
#include <memory>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/error.h"
#include "configs/defaults.h"
#include "configs/roles.h"
#include "models/lora_file.h"
#include "runtime/checkpoint/average.h"
#include "runtime/checkpoint/checkpoint_tensors.h"
#include "runtime/checkpoint/flat_state.h"
#include "runtime/checkpoint/run_checkpoints.h"
#include "runtime/checkpoint/start_weights.h"
#include "runtime/train/job_adapters.h"
#include "runtime/train/job_model.h"

namespace sprocket::runtime {
namespace {

using models::ParameterStore;

struct Source {
  std::string path;
  CheckpointState state;
  config::Job job;  // of the network that is exported
};

Source open_source(const CheckpointExport& options) {
  if (std::filesystem::exists(options.output)) {
    throw OutputError(fmt::format("{}: exists; expected the name of a new file", options.output));
  }
  Source source;
  source.path = open_checkpoint(options.checkpoint).path;
  source.state = read_state(source.path);
  source.job = source.state.job();
  config::apply_defaults(source.job);
  if (source.job.has_distillation()) {
    source.job = config::role_job(source.job, config::NetworkRole::kStudent);
  }
  if (options.ema && !has_average(source.state)) {
    throw InputError(
        fmt::format("{}: has no moving average (training.ema_decay); without --ema "
                    "the last weights are exported",
                    source.path));
  }
  return source;
}

// What the training changed: all weights, or adapters and gates.
std::unique_ptr<ParameterStore> read_trained(const Source& source, bool ema) {
  std::vector<models::ParameterSpec> specs = model_parameters(source.job);
  if (trains_adapters(source.job)) specs = lora_parameters(specs, lora_spec(source.job));
  auto trained =
      std::make_unique<ParameterStore>(std::move(specs), at::kFloat, at::kCPU,
                                       ParameterStore::Copies::kNone, ParameterStore::Use::kFrozen);
  FlatState tensors(*trained);
  tensors.add("", trained->flat_parameters());
  CheckpointTensors wanted;
  wanted.others = {{ema ? kAveragePart : "model", tensors.tensors()}};
  load_tensors(source.path, wanted);
  tensors.write_back();
  return trained;
}

// The weights beside the adapters, as the training had them.
std::unique_ptr<ParameterStore> read_base(Source& source) {
  source.job.mutable_model()->set_weights(find_start_weights(source.job, "the base").path);
  auto base = make_parameters(source.job, at::kCPU, ParameterStore::Use::kFrozen);
  start_parameters(source.job, *base);
  check_frozen_weights(frozen_weights_hash(*base), source.state.base_hash(), source.path,
                       source.job.model().weights());
  return base;
}

}  // namespace

CheckpointExportResult export_weights(const CheckpointExport& options) {
  Source source = open_source(options);
  const bool merges = trains_adapters(source.job);
  std::unique_ptr<ParameterStore> weights = read_trained(source, options.ema);
  if (merges) {
    const auto adapters = std::exchange(weights, read_base(source));
    models::merge_adapters(*adapters, lora_spec(source.job).factor(), *weights);
  }
  models::write_weights(options.output, *weights, diffusers_names(source.job));
  return {source.path, source.state.step(), weights->size(), merges};
}

CheckpointExportResult export_adapters(const CheckpointExport& options) {
  const Source source = open_source(options);
  if (!trains_adapters(source.job)) {
    throw InputError(
        fmt::format("{}: has no adapters (training.lora); sprocket checkpoint export "
                    "{} --output FILE writes its weights",
                    source.path, source.path));
  }
  const auto adapters = read_trained(source, options.ema);
  models::write_adapters(options.output, *adapters, lora_spec(source.job).factor(),
                         diffusers_names(source.job));
  return {source.path, source.state.step(), adapters->size(), false};
}

}  // namespace sprocket::runtime
