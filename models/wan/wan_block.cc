#include "models/wan/wan_block.h"

#include <ATen/TensorOperators.h>
#include <fmt/format.h>

#include "base/error.h"
#include "models/autograd/cross_attention.h"
#include "models/autograd/norms.h"

namespace sprocket::models {

WanBlock::Attention WanBlock::attention_of(const ModelWeights& weights, const std::string& prefix) {
  return {affine_of(weights, prefix + ".q"),         affine_of(weights, prefix + ".k"),
          affine_of(weights, prefix + ".v"),         affine_of(weights, prefix + ".o"),
          weights.tensor(prefix + ".norm_q.weight"), weights.tensor(prefix + ".norm_k.weight")};
}

WanBlock::WanBlock(const WanConfig& config, const ModelWeights& weights, int layer)
    : heads_(config.heads), eps_(config.eps) {
  const std::string prefix = fmt::format("blocks.{}", layer);
  modulation_ = weights.tensor(prefix + ".modulation");
  self_ = attention_of(weights, prefix + ".self_attn");
  cross_ = attention_of(weights, prefix + ".cross_attn");
  norm3_ = affine_of(weights, prefix + ".norm3");
  ffn_in_ = affine_of(weights, prefix + ".ffn.0");
  ffn_out_ = affine_of(weights, prefix + ".ffn.2");
  if (config.coarse_gate) {
    coarse_gate_ = affine_of(weights, prefix + ".self_attn.to_gate_compress");
  }
  if (config.fine_gate) fine_gate_ = affine_of(weights, prefix + ".self_attn.to_gate_fine");
}

at::Tensor WanBlock::self_attention(const at::Tensor& h_BLD, const BlockInputs& inputs,
                                    parallel::AttentionSlot& slot, const OpContext& op) const {
  const std::vector<int64_t> heads{h_BLD.size(0), h_BLD.size(1), heads_, h_BLD.size(2) / heads_};
  const at::Tensor q =
      rms_norm_heads(linear(h_BLD, self_.q, op), self_.norm_q, &inputs.rope, heads_, eps_, op);
  const at::Tensor k =
      rms_norm_heads(linear(h_BLD, self_.k, op), self_.norm_k, &inputs.rope, heads_, eps_, op);
  const at::Tensor v = linear(h_BLD, self_.v, op).view(heads);
  const auto gate = [&](const Affine& layer) {
    SPROCKET_CHECK(layer.weight.defined(), "the method needs a model with gates");
    return linear(h_BLD, layer, op).view(heads);
  };
  parallel::AttentionGates gates;
  if (inputs.spec.coarse_gated()) gates.coarse = gate(coarse_gate_);
  if (inputs.spec.fine_gated()) gates.fine = gate(fine_gate_);
  const at::Tensor out = inputs.attention.forward(q, k, v, gates, inputs.spec, slot);
  return linear(out.view(h_BLD.sizes()), self_.o, op);
}

at::Tensor WanBlock::text_attention(const at::Tensor& h_BLD, const at::Tensor& context_BSD,
                                    const OpContext& op) const {
  const at::Tensor q =
      rms_norm_heads(linear(h_BLD, cross_.q, op), cross_.norm_q, nullptr, heads_, eps_, op);
  const at::Tensor k =
      rms_norm_heads(linear(context_BSD, cross_.k, op), cross_.norm_k, nullptr, heads_, eps_, op);
  const at::Tensor v = linear(context_BSD, cross_.v, op).view(k.sizes());
  const at::Tensor out = cross_attention(q, k, v, op);
  return linear(out.view(h_BLD.sizes()), cross_.o, op);
}

at::Tensor WanBlock::forward(const at::Tensor& x_BLD, const at::Tensor& e0_B6D,
                             const at::Tensor& context_BSD, const BlockInputs& inputs,
                             parallel::AttentionSlot& slot, const OpContext& op) const {
  const at::ScalarType type = context_BSD.scalar_type();
  const at::Tensor m_B6D = modulation_ + e0_B6D;
  const auto part = [&](int i) { return m_B6D.select(1, i); };

  at::Tensor x = x_BLD;
  const at::Tensor h = layer_norm_modulate(x, part(0), part(1), eps_, type, op);
  x = gated_residual(x, self_attention(h, inputs, slot, op), part(2), op);

  const at::Tensor h3 = layer_norm_affine(x, norm3_.weight, norm3_.bias, eps_, type, op);
  x = residual(x, text_attention(h3, context_BSD, op), op);

  const at::Tensor h2 = layer_norm_modulate(x, part(3), part(4), eps_, type, op);
  const at::Tensor hidden = linear(h2, ffn_in_, op);
  return gated_residual(x, gelu_linear(hidden, ffn_out_, op), part(5), op);
}

}  // namespace sprocket::models
