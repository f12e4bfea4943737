#include "models/wan/wan_model.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/silu.h>

#include "base/error.h"
#include "models/autograd/checkpoint.h"
#include "models/autograd/linear.h"
#include "models/autograd/norms.h"
#include "models/sinusoid.h"
#include "models/wan/wan_block.h"
#include "parallel/tensor_buffer.h"

namespace sprocket::models {

WanModel::WanModel(const WanConfig& config, const ModelWeights& weights, const parallel::Mesh& mesh,
                   const ModelCompute& compute)
    : config_(config), compute_(compute), mesh_(mesh), weights_(weights) {
  check_dtype(weights, compute.dtype);
  for (int layer = 0; layer < config.layers; ++layer) blocks_.emplace_back(config, weights, layer);
}

WanModel::~WanModel() = default;

at::Tensor WanModel::forward(const at::Tensor& patches, const at::Tensor& timestep,
                             const at::Tensor& text, const parallel::AttentionSpec& spec,
                             parallel::SequenceAttention& attention,
                             std::span<parallel::AttentionSlot> slots) const {
  const int64_t batch = patches.size(0), rows = patches.size(1);
  const int rank = mesh_.sequence().rank();
  SPROCKET_CHECK_EQ(slots.size(), blocks_.size());
  SPROCKET_CHECK_EQ(patches.size(2), config_.patch_features());
  SPROCKET_CHECK_EQ(rows, attention.shards().tokens_of(rank));
  SPROCKET_CHECK(timestep.dim() == 1 && timestep.size(0) == batch,
                 "expected a timestep per sample");
  SPROCKET_CHECK(text.dim() == 3 && text.size(0) == batch && text.size(1) == config_.text_tokens &&
                     text.size(2) == config_.text_dim,
                 "expected text of {} x {} x {}", batch, config_.text_tokens, config_.text_dim);

  weights_.refresh_copies();
  Timeline* timeline = mesh_.timeline();
  PhaseScope phase(timeline, forward_phase(timeline));
  const at::ScalarType type = compute_.dtype;
  const at::ScalarType accumulator = parallel::accumulator_type(type);
  const OpContext outside{timeline, -1, compute_.threads};
  const auto affine = [&](const char* prefix) { return affine_of(weights_, prefix); };

  const at::Tensor wave = sinusoid(timestep, config_.frequency_dim, accumulator);
  const at::Tensor e_BD = linear(at::silu(linear(wave, affine("time_embedding.0"), outside)),
                                 affine("time_embedding.2"), outside);
  const at::Tensor e0_B6D =
      linear(at::silu(e_BD), affine("time_projection.1"), outside).view({batch, 6, config_.dim});

  const at::Tensor context = gelu_linear(linear(text.to(type), affine("text_embedding.0"), outside),
                                         affine("text_embedding.2"), outside);

  const Affine patch = affine("patch_embedding");
  at::Tensor x = in_graph(
      linear(patches.to(accumulator), {patch.weight.flatten(1), patch.bias, {}, {}, {}}, outside));

  RopeTables rope;
  {
    Timeline::Scope scope(timeline, Activity::kCompute, "rope");
    const RopeTables host_rope =
        make_rope_tables(attention.layout(), attention.shards().rank_tokens[rank], rows,
                         config_.head_dim(), accumulator);
    rope = {host_rope.cos.to(x.device()), host_rope.sin.to(x.device())};
  }
  for (int layer = 0; layer < config_.layers; ++layer) {
    LayerScope layer_scope(timeline, layer);
    slots[layer].layer = layer;
    const OpContext op{timeline, layer, compute_.threads};
    // Captures what outlives the graph (this, attention, slots), and copies of the rest.
    const TensorFunction body = [this, layer, op, spec, rope, &attention,
                                 slot = &slots[layer]](const std::vector<at::Tensor>& inputs) {
      // One alias of each input, so that the gradients of its uses in this block are summed first,
      // with and without checkpointing.
      return blocks_[layer].forward(inputs[0].alias(), inputs[1].alias(), inputs[2].alias(),
                                    {spec, attention, rope}, *slot, op);
    };
    const std::vector<at::Tensor> inputs{x, e0_B6D, context};
    x = compute_.checkpoint_blocks && at::GradMode::is_enabled() ? checkpoint(body, inputs, op)
                                                                 : body(inputs);
  }

  const at::Tensor m_B2D = weights_.tensor("head.modulation") + e_BD.unsqueeze(1);
  return linear(layer_norm_modulate(x, m_B2D.select(1, 0), m_B2D.select(1, 1), config_.eps,
                                    accumulator, outside),
                affine("head.head"), outside);
}

}  // namespace sprocket::models
