// The Wan2.1 text-to-video transformer on one rank's share of the tokens.
//
// Compute dtype T is fp32, bf16 or fp64 (proofs); A is fp64 for fp64 and fp32 otherwise. The
// residual stream, norms, modulation, time embedding, patch embedding and head are A; the other
// products take weights and activations in T. Parameters are leaves of the ParameterStore (A,
// master weights); products in bf16 read its copies if it keeps any.
#pragma once

#include <span>
#include <vector>

#include <ATen/core/Tensor.h>

#include "models/model_compute.h"
#include "models/parameter_store.h"
#include "models/wan/wan_config.h"
#include "parallel/sequence_attention.h"

namespace sprocket::models {

class WanBlock;

class WanModel {
 public:
  // `parameters` holds wan_parameters(config) (by name) in fp64 exactly when compute.dtype is
  // kDouble. Both references must outlive the model and every graph made with it.
  WanModel(const WanConfig& config, const ParameterStore& parameters, const parallel::Mesh& mesh,
           const ModelCompute& compute);
  ~WanModel();

  const WanConfig& config() const { return config_; }
  const ModelCompute& compute() const { return compute_; }

  // The predicted velocity (noise - x0) of this rank's tokens.
  //   patches   [B, L_rank, F], features (c, pt, ph, pw), any floating dtype; see patchify_tokens
  //   timestep  [B] in 0..1000, any dtype
  //   text      [B, text_tokens, text_dim], zero-padded, any floating dtype
  //   attention made for this mesh and for the video's layout; its tokens of this rank are L_rank
  //   slots     one for each layer; they must stay in place until the backward is done, and hold
  //   the
  //             selections and statistics afterwards. Clear them for every new forward.
  // Returns [B, L_rank, F] in A, features (pt, ph, pw, c). Collective over the sequence group, and
  // so is its backward, which adds this rank's share of every parameter's gradient to the store:
  // the gradient of a loss that is a sum over the ranks' tokens is the sum over the sequence ranks.
  // With gradients enabled intervals get Phase::kForward; otherwise the caller's phase stays.
  at::Tensor forward(const at::Tensor& patches, const at::Tensor& timestep, const at::Tensor& text,
                     const parallel::AttentionSpec& spec, parallel::SequenceAttention& attention,
                     std::span<parallel::AttentionSlot> slots) const;

 private:
  WanConfig config_;
  ModelCompute compute_;
  const parallel::Mesh& mesh_;
  const ParameterStore& parameters_;
  std::vector<WanBlock> blocks_;
};

}  // namespace sprocket::models
