// What the models of this folder have in common: a transformer over the tokens of a video, of which
// a rank has a share, with a timestep and a text.
#pragma once

#include <span>

#include <ATen/core/Tensor.h>

#include "models/patches.h"
#include "parallel/sequence_attention.h"

namespace sprocket::models {

class VideoTransformer {
 public:
  virtual ~VideoTransformer() = default;

  virtual int layers() const = 0;
  virtual const Patch& patch() const = 0;
  // Of the features that forward() returns; those that it takes are always kChannelFirst.
  virtual FeatureOrder output_order() const = 0;

  // What the model predicts for this rank's tokens of the video.
  //   patches   [B, L_video, F], those tokens (token_share.h), features (c, pt, ph, pw), any
  //             floating dtype; see patchify_tokens
  //   timestep  [B], any dtype
  //   text      [B, text_tokens, text_dim], the whole of it on every rank, zero-padded, any
  //             floating dtype
  //   attention made for the model's mesh and for the video's layout
  //   slots     one for each layer; they must stay in place until the backward is done, and hold
  //             the selections and statistics afterwards. Clear them for every new forward.
  // Returns [B, L_video, F], features in output_order(). Collective over the sequence group, and so
  // is its backward, which adds this rank's share of every parameter's gradient to the store: the
  // gradient of a loss that is a sum over the ranks' tokens is the sum over the sequence ranks.
  // With gradients enabled intervals get Phase::kForward; otherwise the caller's phase stays.
  virtual at::Tensor forward(const at::Tensor& patches, const at::Tensor& timestep,
                             const at::Tensor& text, const parallel::AttentionSpec& spec,
                             parallel::SequenceAttention& attention,
                             std::span<parallel::AttentionSlot> slots) const = 0;
};

}  // namespace sprocket::models
