#include "models/cogvideox/cogvideox_model.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/silu.h>

#include "base/error.h"
#include "models/autograd/checkpoint.h"
#include "models/autograd/linear.h"
#include "models/autograd/norms.h"
#include "models/cogvideox/cogvideox_block.h"
#include "models/cogvideox/positions.h"
#include "models/sinusoid.h"
#include "models/token_share.h"
#include "parallel/tensor_buffer.h"

namespace sprocket::models {

CogVideoXModel::CogVideoXModel(const CogVideoXConfig& config, const ModelWeights& weights,
                               const parallel::Mesh& mesh, const ModelCompute& compute)
    : config_(config), compute_(compute), mesh_(mesh), weights_(weights) {
  check_dtype(weights, compute.dtype);
  for (int layer = 0; layer < config.layers; ++layer) blocks_.emplace_back(config, weights, layer);
}

CogVideoXModel::~CogVideoXModel() = default;

at::ScalarType CogVideoXModel::accumulator() const {
  return parallel::accumulator_type(compute_.dtype);
}

void CogVideoXModel::check_inputs(const at::Tensor& patches, const at::Tensor& timestep,
                                  const at::Tensor& text, const parallel::TokenLayout& layout,
                                  const TokenShare& share) const {
  const int64_t batch = patches.size(0);
  SPROCKET_CHECK_EQ(patches.size(1), share.video);
  SPROCKET_CHECK_EQ(patches.size(2), config_.patch_features());
  SPROCKET_CHECK(timestep.dim() == 1 && timestep.size(0) == batch,
                 "expected a timestep per sample");
  SPROCKET_CHECK(text.dim() == 3 && text.size(0) == batch && text.size(1) == config_.text_tokens &&
                     text.size(2) == config_.text_dim,
                 "expected text of {} x {} x {}", batch, config_.text_tokens, config_.text_dim);
  SPROCKET_CHECK(layout.prefix_tokens() == config_.text_tokens,
                 "expected a layout with the text's {} tokens as its prefix, found {}",
                 config_.text_tokens, layout.prefix_tokens());
}

at::Tensor CogVideoXModel::time_embedding(const at::Tensor& timestep, const OpContext& op) const {
  const at::Tensor wave = sinusoid(timestep, config_.dim, accumulator());
  const at::Tensor hidden = linear(wave, affine_of(weights_, "time_embedding.linear_1"), op);
  return linear(at::silu(hidden), affine_of(weights_, "time_embedding.linear_2"), op);
}

at::Tensor CogVideoXModel::embed(const at::Tensor& patches, const at::Tensor& text,
                                 const parallel::TokenLayout& layout, const TokenShare& share,
                                 const OpContext& op) const {
  Affine patch = affine_of(weights_, "patch_embed.proj");
  patch.weight = patch.weight.flatten(1);
  at::Tensor video = linear(patches.to(accumulator()), patch, op);
  if (!config_.rotary()) {
    Timeline::Scope scope(op.timeline, Activity::kCompute, "positions");
    video =
        video + sinusoid_positions(config_, layout, share.first_video(), share.video, accumulator())
                    .to(video.device());
  }
  const int64_t first_text = share.text > 0 ? share.first : 0;
  const at::Tensor own_text = text.narrow(1, first_text, share.text).to(compute_.dtype);
  const at::Tensor embedded =
      linear(own_text, affine_of(weights_, "patch_embed.text_proj"), op).to(accumulator());
  return at::cat({embedded, video}, 1);
}

RopeTables CogVideoXModel::rope_of(const parallel::TokenLayout& layout,
                                   const TokenShare& share) const {
  if (!config_.rotary()) return {};
  Timeline::Scope scope(mesh_.timeline(), Activity::kCompute, "rope");
  const RopeTables host =
      cogvideox_rope(config_, layout, share.first, share.tokens(), accumulator());
  return {host.cos.to(mesh_.device()), host.sin.to(mesh_.device())};
}

at::Tensor CogVideoXModel::output(const at::Tensor& x_BLD, const at::Tensor& e_BE,
                                  const OpContext& op) const {
  const Affine final = affine_of(weights_, "norm_final");
  const Affine norm = affine_of(weights_, "norm_out.norm");
  const at::Tensor m_B2D =
      linear(e_BE, affine_of(weights_, "norm_out.linear"), op).view({e_BE.size(0), 2, -1});
  const at::Tensor shift = m_B2D.select(1, 0), factor = 1 + m_B2D.select(1, 1);
  const at::Tensor h =
      layer_norm_affine(x_BLD, final.weight, final.bias, config_.eps, accumulator(), op);
  return linear(layer_norm_scaled(h, norm.bias * factor + shift, norm.weight * factor, config_.eps,
                                  accumulator(), op),
                affine_of(weights_, "proj_out"), op);
}

at::Tensor CogVideoXModel::forward(const at::Tensor& patches, const at::Tensor& timestep,
                                   const at::Tensor& text, const parallel::AttentionSpec& spec,
                                   parallel::SequenceAttention& attention,
                                   std::span<parallel::AttentionSlot> slots) const {
  const parallel::TokenLayout& layout = attention.layout();
  const TokenShare share = token_share(layout, attention.shards(), mesh_.sequence().rank());
  SPROCKET_CHECK_EQ(slots.size(), blocks_.size());
  check_inputs(patches, timestep, text, layout, share);

  weights_.refresh_copies();
  Timeline* timeline = mesh_.timeline();
  PhaseScope phase(timeline, forward_phase(timeline));
  const OpContext outside{timeline, -1, compute_.threads};
  // The embedding is used behind SiLU alone, in every block and in the output.
  const at::Tensor e_BE = at::silu(time_embedding(timestep, outside));
  const RopeTables rope = rope_of(layout, share);
  at::Tensor x = in_graph(embed(patches, text, layout, share, outside));
  for (int layer = 0; layer < config_.layers; ++layer) {
    LayerScope layer_scope(timeline, layer);
    slots[layer].layer = layer;
    const OpContext op{timeline, layer, compute_.threads};
    // Captures what outlives the graph (this, attention, slots), and copies of the rest.
    const TensorFunction body = [this, layer, op, spec, rope, rows = share.text, &attention,
                                 slot = &slots[layer]](const std::vector<at::Tensor>& inputs) {
      // One alias of each input, so that the gradients of its uses in this block are summed first,
      // with and without checkpointing.
      return blocks_[layer].forward(inputs[0].alias(), inputs[1].alias(),
                                    {spec, attention, rope, rows, compute_.dtype}, *slot, op);
    };
    const std::vector<at::Tensor> inputs{x, e_BE};
    x = compute_.checkpoint_blocks && at::GradMode::is_enabled() ? checkpoint(body, inputs, op)
                                                                 : body(inputs);
  }
  return output(x.narrow(1, share.text, share.video).contiguous(), e_BE, outside);
}

}  // namespace sprocket::models
