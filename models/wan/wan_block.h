// One block of the Wan transformer (arXiv 2503.20314): self-attention, cross-attention,
// feed-forward.
#pragma once

#include <ATen/core/Tensor.h>

#include "models/autograd/linear.h"
#include "models/autograd/op_scope.h"
#include "models/layer_parameters.h"
#include "models/wan/rope.h"
#include "models/wan/wan_config.h"
#include "parallel/sequence_attention.h"

namespace sprocket::models {

// What every block of one forward shares.
struct BlockInputs {
  const parallel::AttentionSpec& spec;
  parallel::SequenceAttention& attention;
  const RopeTables& rope;
};

class WanBlock {
 public:
  // Keeps references to the store's tensors.
  WanBlock(const WanConfig& config, const ModelWeights& weights, int layer);

  // x_BLD, e0_B6D in A; context_BSD in T, the compute dtype; returns [B, L, D] in A. Collective,
  // and so is its backward.
  at::Tensor forward(const at::Tensor& x_BLD, const at::Tensor& e0_B6D,
                     const at::Tensor& context_BSD, const BlockInputs& inputs,
                     parallel::AttentionSlot& slot, const OpContext& op) const;

 private:
  struct Attention {
    Affine q, k, v, o;
    at::Tensor norm_q, norm_k;
  };
  static Attention attention_of(const ModelWeights& weights, const std::string& prefix);

  at::Tensor self_attention(const at::Tensor& h_BLD, const BlockInputs& inputs,
                            parallel::AttentionSlot& slot, const OpContext& op) const;
  at::Tensor text_attention(const at::Tensor& h_BLD, const at::Tensor& context_BSD,
                            const OpContext& op) const;

  int heads_;
  double eps_;
  at::Tensor modulation_;  // [1, 6, D]: shift, scale, gate of self-attention, then of the FFN
  Attention self_, cross_;
  Affine coarse_gate_, fine_gate_;  // of VSA's branches; undefined when the model has none
  Affine norm3_, ffn_in_, ffn_out_;
};

}  // namespace sprocket::models
