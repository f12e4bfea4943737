#include "runtime/train/network.h"

#include <ATen/core/grad_mode.h>

#include "base/error.h"
#include "models/lora_file.h"
#include "parallel/tensor_buffer.h"
#include "runtime/plan/job_specs.h"
#include "runtime/train/job_adapters.h"
#include "runtime/train/job_model.h"

namespace sprocket::runtime {
namespace {

models::ModelCompute model_compute(const config::Job& job, int threads) {
  models::ModelCompute compute;
  compute.dtype = compute_type(job);
  compute.threads = threads;
  compute.checkpoint_blocks = job.training().activation_checkpointing() == config::Training::BLOCK;
  return compute;
}

}  // namespace

Network::Network(const config::Job& job, const parallel::Mesh& mesh, int threads, Start start,
                 NetworkUse use)
    : job_(job),
      mesh_(mesh),
      threads_(threads),
      weights_(std::move(use.frozen)),
      slots_(job.model().layers()) {
  using Use = models::ParameterStore::Use;
  const bool adapters = trains_adapters(job);
  const Use of_trained = use.trained ? Use::kTrained : Use::kFrozen;
  if (!weights_) {
    weights_ = make_parameters(job, mesh.device(), adapters ? Use::kFrozen : of_trained);
    if (start == Start::kFresh || adapters) start_parameters(job, *weights_);
  }
  double factor = 1;
  if (adapters) {
    const models::LoraSpec lora = lora_spec(job);
    factor = lora.factor();
    adapters_ = make_parameters(job, models::lora_parameters(model_parameters(job), lora),
                                mesh.device(), of_trained);
    if (start == Start::kFresh) start_adapters(factor);
    frozen_hash_ = frozen_weights_hash(*weights_);
  }
  model_ = make_model(job, models::ModelWeights(*weights_, adapters_.get(), factor), mesh,
                      model_compute(job, threads));
}

void Network::start_adapters(double factor) {
  const config::Training& training = job_.training();
  adapters_->initialise(training.seed());
  models::copy_shared_tensors(*weights_, *adapters_);
  if (training.lora().weights().empty()) return;
  models::read_adapters(training.lora().weights(), factor, diffusers_names(job_), *adapters_);
}

std::set<const models::ParameterStore*> Network::stores() const {
  std::set<const models::ParameterStore*> stores = {weights_.get()};
  if (adapters_) stores.insert(adapters_.get());
  return stores;
}

void Network::check_frozen(uint64_t expected, const std::string& checkpoint) const {
  check_frozen_weights(frozen_hash_, expected, checkpoint, job_.model().weights());
}

FlatState Network::checkpoint_state() const {
  const models::ParameterStore& saved = parameters();
  FlatState state(saved);
  state.add("", saved.flat_parameters());
  return state;
}

parallel::SequenceAttention& Network::attention(const data::LatentShape& shape) {
  auto& slot = attention_[shape];
  if (!slot) {
    const config::LatentShape cells{static_cast<int>(shape.c), static_cast<int>(shape.t),
                                    static_cast<int>(shape.h), static_cast<int>(shape.w)};
    slot = std::make_unique<parallel::SequenceAttention>(
        mesh_, parallel::make_token_layout(token_layout_spec(job_, cells)),
        strategy_spec(job_, threads_));
  }
  return *slot;
}

const parallel::TokenLayout& Network::layout(const data::LatentShape& shape) {
  return attention(shape).layout();
}

const parallel::ShardPlan& Network::shards(const data::LatentShape& shape) {
  return attention(shape).shards();
}

models::TokenShare Network::tokens_of(const data::LatentShape& shape, int sequence_rank) {
  return models::token_share(layout(shape), shards(shape), sequence_rank);
}

at::Tensor Network::own_patches(const at::Tensor& latent_BCTHW, const data::LatentShape& shape,
                                models::FeatureOrder order) {
  const models::TokenShare own = own_tokens(shape);
  const Timeline::Scope scope(mesh_.timeline(), Activity::kCopy, "patchify",
                              [&] { return parallel::moving(latent_BCTHW, latent_BCTHW); });
  return models::patchify_tokens(latent_BCTHW, layout(shape), patch(), own.first_video(), own.video,
                                 order)
      .to(mesh_.device());
}

at::Tensor Network::velocity(const at::Tensor& patches, const at::Tensor& timestep,
                             const at::Tensor& text, const data::LatentShape& shape,
                             const parallel::AttentionSpec& spec,
                             std::span<const parallel::Selection> selections) {
  SPROCKET_CHECK(selections.empty() || selections.size() == slots_.size(),
                 "selections of {} layers for {}", selections.size(), slots_.size());
  for (size_t layer = 0; layer < slots_.size(); ++layer) {
    slots_[layer].clear();
    if (!selections.empty()) slots_[layer].selection = selections[layer];
  }
  const at::Tensor velocity =
      model_->forward(patches, timestep.to(mesh_.device()), text.to(mesh_.device()), spec,
                      attention(shape), slots_);
  if (!at::GradMode::is_enabled()) settle(shape);
  return velocity;
}

}  // namespace sprocket::runtime
