// One block of the CogVideoX transformer: joint attention over [text; video], then the feed-forward
// layer, each behind a modulated LayerNorm whose affine part text and video share.
#pragma once

#include <ATen/core/Tensor.h>

#include "models/autograd/op_scope.h"
#include "models/cogvideox/cogvideox_config.h"
#include "models/layer_parameters.h"
#include "models/rope_tables.h"
#include "parallel/sequence_attention.h"

namespace sprocket::models {

// What every block of one forward shares.
struct CogVideoXBlockInputs {
  const parallel::AttentionSpec& spec;
  parallel::SequenceAttention& attention;
  const RopeTables& rope;  // of all rows; without tensors in a model of sinusoids
  int64_t text_rows;       // the first of this rank's rows
  at::ScalarType type;     // T
};

class CogVideoXBlock {
 public:
  // Keeps references to the store's tensors.
  CogVideoXBlock(const CogVideoXConfig& config, const ModelWeights& weights, int layer);

  // x_BLD, this rank's rows of text and then of video, and e_BE, SiLU of the time embedding, in A;
  // returns [B, L, D] in A. Collective, and so is its backward.
  at::Tensor forward(const at::Tensor& x_BLD, const at::Tensor& e_BE,
                     const CogVideoXBlockInputs& inputs, parallel::AttentionSlot& slot,
                     const OpContext& op) const;

 private:
  struct ModulatedNorm {
    Affine modulation, norm;
  };
  // The residual stream by the two kinds of rows.
  struct Rows {
    at::Tensor text, video;
  };
  // A sub-layer: what it takes, made by LayerNorm and modulation, and what it gives, added by
  // gates.
  template <class Layer>
  Rows residual(const Rows& x, const ModulatedNorm& norm, const at::Tensor& e_BE,
                const CogVideoXBlockInputs& inputs, const OpContext& op, Layer layer) const;

  at::Tensor joint_attention(const at::Tensor& h_BLD, const CogVideoXBlockInputs& inputs,
                             parallel::AttentionSlot& slot, const OpContext& op) const;
  at::Tensor heads_of(const at::Tensor& x_BLD, const Affine& norm,
                      const CogVideoXBlockInputs& inputs, const OpContext& op) const;

  int heads_;
  double eps_, qk_eps_;
  ModulatedNorm attention_norm_, ffn_norm_;
  Affine q_, k_, v_, o_, norm_q_, norm_k_;
  Affine coarse_gate_, fine_gate_;  // of VSA's branches; undefined when the model has none
  Affine ffn_in_, ffn_out_;
};

}  // namespace sprocket::models
