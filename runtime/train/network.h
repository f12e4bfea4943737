// A job's model on this rank: parameters, the transformer, and the attention of every video shape.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "configs/job.pb.h"
#include "models/parameter_store.h"
#include "models/patches.h"
#include "models/token_share.h"
#include "models/video_transformer.h"
#include "parallel/sequence_attention.h"
#include "runtime/checkpoint/flat_state.h"
#include "runtime/data/index.h"

namespace sprocket::runtime {

struct NetworkUse {
  // Whether parameters() have gradients.
  bool trained = true;
  // Weights that others may have too, of a job that trains adapters or nothing: model_parameters()
  // of the job and maybe more, kFrozen. Null: the network reads its own.
  std::shared_ptr<models::ParameterStore> frozen;
};

class Network {
 public:
  enum class Start {
    kFresh,       // from model.weights and training.lora.weights, or else from training.seed
    kCheckpoint,  // parameters() are zeros, which the caller replaces through checkpoint_state()
  };
  // Parameters and everything computed live on the mesh's device; inputs may be on the host. `mesh`
  // must outlive the network. Throws InputError for weights or adapters that do not fit,
  // ConfigError for adapters of layers that the model does not have.
  Network(const config::Job& job, const parallel::Mesh& mesh, int threads, Start start,
          NetworkUse use = {});

  const config::Job& job() const { return job_; }
  const parallel::Mesh& mesh() const { return mesh_; }
  int threads() const { return threads_; }
  int layers() const { return model_->layers(); }
  const models::Patch& patch() const { return model_->patch(); }
  // Of the features that `velocity` returns.
  models::FeatureOrder output_order() const { return model_->output_order(); }
  // What training changes and checkpoints hold: all weights, or where the job trains adapters these
  // and the gates. fp32, or fp64 under compute.precision: FP64.
  models::ParameterStore& parameters() { return adapters_ ? *adapters_ : *weights_; }
  const models::ParameterStore& parameters() const { return adapters_ ? *adapters_ : *weights_; }
  // These, and the frozen weights beside adapters.
  std::set<const models::ParameterStore*> stores() const;
  // frozen_weights_hash of the weights beside adapters; 0 without adapters.
  uint64_t frozen_hash() const { return frozen_hash_; }
  // Throws InputError unless frozen_hash() is what the adapters of a checkpoint were trained on.
  void check_frozen(uint64_t expected, const std::string& checkpoint) const;
  // parameters() under their official names; fp32 alone.
  FlatState checkpoint_state() const;

  // The tokens of the sequence that a sequence rank has, and this one.
  models::TokenShare tokens_of(const data::LatentShape& shape, int sequence_rank);
  models::TokenShare own_tokens(const data::LatentShape& shape) {
    return tokens_of(shape, mesh_.sequence().rank());
  }
  const parallel::TokenLayout& layout(const data::LatentShape& shape);
  const parallel::ShardPlan& shards(const data::LatentShape& shape);

  // latent_BCTHW, in host memory -> this rank's tokens of it [B, own_tokens().video, F], on the
  // mesh's device.
  at::Tensor own_patches(const at::Tensor& latent_BCTHW, const data::LatentShape& shape,
                         models::FeatureOrder order);

  // What the model predicts for this rank's tokens (VideoTransformer::forward) with the given
  // attention; `patches` are kChannelFirst. Gradient mode is the caller's. The selections and
  // statistics of the call are in slots() until the next one. `selections`, of all layers, are used
  // instead of choosing; empty: every layer chooses.
  at::Tensor velocity(const at::Tensor& patches, const at::Tensor& timestep, const at::Tensor& text,
                      const data::LatentShape& shape, const parallel::AttentionSpec& spec,
                      std::span<const parallel::Selection> selections = {});
  // After the backward of `velocity`: SequenceAttention::settle. Without gradients `velocity` does
  // it itself.
  void settle(const data::LatentShape& shape) { attention(shape).settle(); }
  const std::vector<parallel::AttentionSlot>& slots() const { return slots_; }

 private:
  parallel::SequenceAttention& attention(const data::LatentShape& shape);
  void start_adapters(double factor);

  config::Job job_;
  const parallel::Mesh& mesh_;
  int threads_;
  std::shared_ptr<models::ParameterStore> weights_;
  std::unique_ptr<models::ParameterStore> adapters_;  // null: all weights are trained
  uint64_t frozen_hash_ = 0;
  std::unique_ptr<models::VideoTransformer> model_;
  std::vector<parallel::AttentionSlot> slots_;
  std::map<data::LatentShape, std::unique_ptr<parallel::SequenceAttention>> attention_;
};

}  // namespace sprocket::runtime
