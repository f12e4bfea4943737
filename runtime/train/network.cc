#include "runtime/train/network.h"

#include <ATen/core/grad_mode.h>

#include "base/error.h"
#include "parallel/tensor_buffer.h"
#include "runtime/plan/job_specs.h"
#include "runtime/train/job_model.h"

namespace sprocket::runtime {
namespace {

at::ScalarType compute_type(const config::Job& job) {
  switch (job.compute().precision()) {
    case config::Compute::FP32:
      return at::kFloat;
    case config::Compute::BF16:
      return at::kBFloat16;
    case config::Compute::FP64:
      return at::kDouble;
  }
  throw InternalError("compute.precision has no counterpart");
}

// On the processor a product rounds for itself.
models::ParameterStore::Copies copies_of(const config::Job& job, const at::Device& device) {
  using Copies = models::ParameterStore::Copies;
  return device.is_cuda() && compute_type(job) == at::kBFloat16 ? Copies::kBFloat16 : Copies::kNone;
}

models::ModelCompute model_compute(const config::Job& job, int threads) {
  models::ModelCompute compute;
  compute.dtype = compute_type(job);
  compute.threads = threads;
  compute.checkpoint_blocks = job.training().activation_checkpointing() == config::Training::BLOCK;
  return compute;
}

}  // namespace

Network::Network(const config::Job& job, const parallel::Mesh& mesh, int threads, Start start)
    : job_(job),
      mesh_(mesh),
      threads_(threads),
      parameters_(model_parameters(job), parallel::accumulator_type(compute_type(job)),
                  mesh.device(), copies_of(job, mesh.device())),
      model_(make_model(job, parameters_, mesh, model_compute(job, threads))),
      slots_(job.model().layers()) {
  if (start == Start::kCheckpoint) return;
  start_parameters(job, parameters_);
}

FlatState Network::checkpoint_state() const {
  FlatState state(parameters_);
  state.add("", parameters_.flat_parameters());
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
