#include "runtime/jobs/lora_export.h"

#include <filesystem>

#include <fmt/format.h>

#include "base/error.h"
#include "configs/defaults.h"
#include "configs/roles.h"
#include "models/lora_file.h"
#include "runtime/checkpoint/average.h"
#include "runtime/checkpoint/checkpoint_io.h"
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
  config::Job job;  // of the network that has the adapters
};

Source open_source(const LoraExport& options) {
  Source source;
  source.path = open_checkpoint(options.checkpoint).path;
  source.state = read_state(source.path);
  source.job = source.state.job();
  config::apply_defaults(source.job);
  if (source.job.has_distillation()) {
    source.job = config::role_job(source.job, config::NetworkRole::kStudent);
  }
  if (!trains_adapters(source.job)) {
    throw InputError(fmt::format("{}: has no adapters (training.lora); its weights are in {}/model",
                                 source.path, source.path));
  }
  if (options.ema && !has_average(source.state)) {
    throw InputError(fmt::format("{}: has no moving average (training.ema_decay)", source.path));
  }
  return source;
}

void read_trained(const Source& source, bool ema, ParameterStore& trained) {
  FlatState tensors(trained);
  tensors.add("", trained.flat_parameters());
  CheckpointTensors wanted;
  wanted.others = {{ema ? kAveragePart : "model", tensors.tensors()}};
  load_tensors(source.path, wanted);
  tensors.write_back();
}

}  // namespace

LoraExportResult export_lora(const LoraExport& options) {
  if (std::filesystem::exists(options.output)) {
    throw OutputError(fmt::format("{}: exists; expected the name of a new file", options.output));
  }
  Source source = open_source(options);
  const models::LoraSpec lora = lora_spec(source.job);
  ParameterStore trained(lora_parameters(model_parameters(source.job), lora), at::kFloat, at::kCPU,
                         ParameterStore::Copies::kNone, ParameterStore::Use::kFrozen);
  read_trained(source, options.ema, trained);
  const models::NameInFile names = diffusers_names(source.job);
  LoraExportResult result{source.path, source.state.step(), trained.size()};
  if (!options.merge) {
    models::write_adapters(options.output, trained, lora.factor(), names);
    return result;
  }
  source.job.mutable_model()->set_weights(find_start_weights(source.job, "the base").path);
  const auto base = make_parameters(source.job, at::kCPU, ParameterStore::Use::kFrozen);
  start_parameters(source.job, *base);
  check_frozen_weights(frozen_weights_hash(*base), source.state.base_hash(), source.path,
                       source.job.model().weights());
  models::merge_adapters(trained, lora.factor(), *base);
  models::write_weights(options.output, *base, names);
  result.tensors = base->size();
  return result;
}

}  // namespace sprocket::runtime
