// The CogVideoX text-to-video transformer on one rank's share of the tokens.
//
// Compute dtype T is fp32, bf16 or fp64 (proofs); A is fp64 for fp64 and fp32 otherwise. The
// residual stream, norms, modulation, time embedding, patch embedding and output are A; the other
// products take weights and activations in T. Parameters are leaves of the ParameterStore (A,
// master weights); products in bf16 read its copies if it keeps any.
//
// The text is a prefix segment of the token layout; see token_share.h for who computes what of it.
#pragma once

#include <span>
#include <vector>

#include <ATen/core/Tensor.h>

#include "models/autograd/op_scope.h"
#include "models/cogvideox/cogvideox_config.h"
#include "models/layer_parameters.h"
#include "models/model_compute.h"
#include "models/rope_tables.h"
#include "models/video_transformer.h"

namespace sprocket::models {

class CogVideoXBlock;
struct TokenShare;

class CogVideoXModel : public VideoTransformer {
 public:
  // `weights.base` holds cogvideox_parameters(config) (by name), and maybe others, in fp64 exactly
  // when compute.dtype is kDouble. The stores and the mesh must outlive the model and every graph
  // made with it.
  CogVideoXModel(const CogVideoXConfig& config, const ModelWeights& weights,
                 const parallel::Mesh& mesh, const ModelCompute& compute);
  ~CogVideoXModel() override;

  const CogVideoXConfig& config() const { return config_; }
  const ModelCompute& compute() const { return compute_; }

  int layers() const override { return config_.layers; }
  const Patch& patch() const override { return config_.patch; }
  FeatureOrder output_order() const override { return FeatureOrder::kChannelFirst; }

  // v of DDPM's v-prediction, in A. The timestep is in 0..999; the layout has one prefix segment of
  // text_tokens; pads of the text are tokens like others.
  at::Tensor forward(const at::Tensor& patches, const at::Tensor& timestep, const at::Tensor& text,
                     const parallel::AttentionSpec& spec, parallel::SequenceAttention& attention,
                     std::span<parallel::AttentionSlot> slots) const override;

 private:
  void check_inputs(const at::Tensor& patches, const at::Tensor& timestep, const at::Tensor& text,
                    const parallel::TokenLayout& layout, const TokenShare& share) const;
  at::Tensor time_embedding(const at::Tensor& timestep, const OpContext& op) const;
  // This rank's rows of text and of video, [B, L, D].
  at::Tensor embed(const at::Tensor& patches, const at::Tensor& text,
                   const parallel::TokenLayout& layout, const TokenShare& share,
                   const OpContext& op) const;
  RopeTables rope_of(const parallel::TokenLayout& layout, const TokenShare& share) const;
  // Of the video's rows.
  at::Tensor output(const at::Tensor& x_BLD, const at::Tensor& e_BE, const OpContext& op) const;

  at::ScalarType accumulator() const;

  CogVideoXConfig config_;
  ModelCompute compute_;
  const parallel::Mesh& mesh_;
  ModelWeights weights_;
  std::vector<CogVideoXBlock> blocks_;
};

}  // namespace sprocket::models
