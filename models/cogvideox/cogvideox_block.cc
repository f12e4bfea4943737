#include "models/cogvideox/cogvideox_block.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <fmt/format.h>

#include "base/error.h"
#include "models/autograd/norms.h"
#include "models/autograd/rotation.h"

namespace sprocket::models {
namespace {

// LayerNorm's affine part and the modulation behind it are one: (n w + b)(1 + scale) + shift.
at::Tensor modulated_norm(const at::Tensor& x_BLD, const Affine& norm, const at::Tensor& shift_BD,
                          const at::Tensor& scale_BD, double eps, at::ScalarType type,
                          const OpContext& op) {
  const at::Tensor factor = 1 + scale_BD;
  return layer_norm_scaled(x_BLD, norm.bias * factor + shift_BD, norm.weight * factor, eps, type,
                           op);
}

}  // namespace

CogVideoXBlock::CogVideoXBlock(const CogVideoXConfig& config, const ModelWeights& weights,
                               int layer)
    : heads_(config.heads), eps_(config.eps), qk_eps_(config.qk_eps) {
  const std::string prefix = fmt::format("transformer_blocks.{}.", layer);
  const auto affine = [&](const char* name) { return affine_of(weights, prefix + name); };
  attention_norm_ = {affine("norm1.linear"), affine("norm1.norm")};
  q_ = affine("attn1.to_q");
  k_ = affine("attn1.to_k");
  v_ = affine("attn1.to_v");
  o_ = affine("attn1.to_out.0");
  norm_q_ = affine("attn1.norm_q");
  norm_k_ = affine("attn1.norm_k");
  ffn_norm_ = {affine("norm2.linear"), affine("norm2.norm")};
  ffn_in_ = affine("ff.net.0.proj");
  ffn_out_ = affine("ff.net.2");
  if (config.coarse_gate) coarse_gate_ = affine("attn1.to_gate_compress");
  if (config.fine_gate) fine_gate_ = affine("attn1.to_gate_fine");
}

// Norms a head at a time: [B, L, D] -> [B, L, H, D/H] in T.
at::Tensor CogVideoXBlock::heads_of(const at::Tensor& x_BLD, const Affine& norm,
                                    const CogVideoXBlockInputs& inputs, const OpContext& op) const {
  const int64_t batch = x_BLD.size(0), rows = x_BLD.size(1), head_dim = x_BLD.size(2) / heads_;
  const at::ScalarType accumulator = norm.weight.scalar_type();
  const at::ScalarType normed = inputs.rope.cos.defined() ? accumulator : inputs.type;
  const at::Tensor heads =
      layer_norm_affine(x_BLD.view({batch, rows * heads_, head_dim}).to(accumulator), norm.weight,
                        norm.bias, qk_eps_, normed, op)
          .view({batch, rows, heads_, head_dim});
  return inputs.rope.cos.defined() ? rotate_heads(heads, inputs.rope, inputs.type, op) : heads;
}

at::Tensor CogVideoXBlock::joint_attention(const at::Tensor& h_BLD,
                                           const CogVideoXBlockInputs& inputs,
                                           parallel::AttentionSlot& slot,
                                           const OpContext& op) const {
  const std::vector<int64_t> heads{h_BLD.size(0), h_BLD.size(1), heads_, h_BLD.size(2) / heads_};
  const at::Tensor q = heads_of(linear(h_BLD, q_, op), norm_q_, inputs, op);
  const at::Tensor k = heads_of(linear(h_BLD, k_, op), norm_k_, inputs, op);
  const at::Tensor v = linear(h_BLD, v_, op).view(heads);
  const auto gate = [&](const Affine& layer) {
    SPROCKET_CHECK(layer.weight.defined(), "the method needs a model with gates");
    return linear(h_BLD, layer, op).view(heads);
  };
  parallel::AttentionGates gates;
  if (inputs.spec.coarse_gated()) gates.coarse = gate(coarse_gate_);
  if (inputs.spec.fine_gated()) gates.fine = gate(fine_gate_);
  const at::Tensor out = inputs.attention.forward(q, k, v, gates, inputs.spec, slot);
  return linear(out.view(h_BLD.sizes()), o_, op);
}

template <class Layer>
CogVideoXBlock::Rows CogVideoXBlock::residual(const Rows& x, const ModulatedNorm& norm,
                                              const at::Tensor& e_BE,
                                              const CogVideoXBlockInputs& inputs,
                                              const OpContext& op, Layer layer) const {
  // Shift, scale and gate of the video, then of the text.
  const at::Tensor m_B6D = linear(e_BE, norm.modulation, op).view({e_BE.size(0), 6, -1});
  const auto part = [&](int i) { return m_B6D.select(1, i); };
  const at::Tensor video =
      modulated_norm(x.video, norm.norm, part(0), part(1), eps_, inputs.type, op);
  const at::Tensor text =
      modulated_norm(x.text, norm.norm, part(3), part(4), eps_, inputs.type, op);
  const at::Tensor y = layer(at::cat({text, video}, 1));
  const int64_t text_rows = inputs.text_rows;
  return {gated_residual(x.text, y.narrow(1, 0, text_rows).contiguous(), part(5), op),
          gated_residual(x.video, y.narrow(1, text_rows, y.size(1) - text_rows).contiguous(),
                         part(2), op)};
}

at::Tensor CogVideoXBlock::forward(const at::Tensor& x_BLD, const at::Tensor& e_BE,
                                   const CogVideoXBlockInputs& inputs,
                                   parallel::AttentionSlot& slot, const OpContext& op) const {
  const int64_t text_rows = inputs.text_rows;
  Rows x{x_BLD.narrow(1, 0, text_rows).contiguous(),
         x_BLD.narrow(1, text_rows, x_BLD.size(1) - text_rows).contiguous()};
  x = residual(x, attention_norm_, e_BE, inputs, op,
               [&](const at::Tensor& h) { return joint_attention(h, inputs, slot, op); });
  x = residual(x, ffn_norm_, e_BE, inputs, op, [&](const at::Tensor& h) {
    return gelu_linear(linear(h, ffn_in_, op), ffn_out_, op);
  });
  return at::cat({x.text, x.video}, 1);
}

}  // namespace sprocket::models
