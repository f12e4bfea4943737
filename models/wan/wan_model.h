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

#include "models/layer_parameters.h"
#include "models/model_compute.h"
#include "models/video_transformer.h"
#include "models/wan/wan_config.h"

namespace sprocket::models {

class WanBlock;

class WanModel : public VideoTransformer {
 public:
  // `weights.base` holds wan_parameters(config) (by name), and maybe others, in fp64 exactly when
  // compute.dtype is kDouble. The stores and the mesh must outlive the model and every graph made
  // with it.
  WanModel(const WanConfig& config, const ModelWeights& weights, const parallel::Mesh& mesh,
           const ModelCompute& compute);
  ~WanModel() override;

  const WanConfig& config() const { return config_; }
  const ModelCompute& compute() const { return compute_; }
  int layers() const override { return config_.layers; }
  const Patch& patch() const override { return config_.patch; }
  FeatureOrder output_order() const override { return FeatureOrder::kChannelLast; }

  // The predicted velocity (noise - x0), in A. The timestep is in 0..1000; the layout has no
  // prefix.
  at::Tensor forward(const at::Tensor& patches, const at::Tensor& timestep, const at::Tensor& text,
                     const parallel::AttentionSpec& spec, parallel::SequenceAttention& attention,
                     std::span<parallel::AttentionSlot> slots) const override;

 private:
  WanConfig config_;
  ModelCompute compute_;
  const parallel::Mesh& mesh_;
  ModelWeights weights_;
  std::vector<WanBlock> blocks_;
};

}  // namespace sprocket::models
