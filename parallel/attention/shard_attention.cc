#include "parallel/attention/shard_attention.h"

#include <algorithm>
#include <cmath>

#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include "parallel/attention/domain_imports.h"
#include "parallel/attention/executed_pairs.h"
#include "parallel/attention/selected_plan.h"
#include "parallel/tensor_buffer.h"

namespace sprocket::parallel {
namespace {

// The video's rows behind as many zero rows.
at::Tensor with_prefix_rows(const at::Tensor& video_BLHD, int64_t rows) {
  if (rows == 0) return video_BLHD;
  std::vector<int64_t> shape = video_BLHD.sizes().vec();
  shape[1] += rows;
  const at::Tensor all = at::zeros(shape, video_BLHD.options());
  all.narrow(1, rows, video_BLHD.size(1)).copy_(video_BLHD);
  return all;
}

// Values of some heads at their places among all of the model's.
template <class T>
std::vector<T> among_all(const std::vector<T>& values, const std::vector<int>& heads,
                         int model_heads) {
  if (values.empty()) return {};
  std::vector<T> all(model_heads);
  for (size_t i = 0; i < values.size(); ++i) all[heads[i]] = values[i];
  return all;
}

}  // namespace

ShardContext::ShardContext(const Mesh& mesh, TokenLayout layout, const StrategySpec& strategy)
    : mesh(mesh),
      layout(std::move(layout)),
      plan(make_shard_plan(this->layout, mesh.shape())),
      strategy(strategy),
      timeline(mesh.timeline()),
      blocks{this->layout.block_offsets, plan.outer_blocks, mesh.coordinate().outer, {}, {}} {}

KeySide& ShardContext::key_side(const std::vector<int>& widths) {
  auto [found, fresh] = key_sides_.try_emplace(widths);
  if (fresh) {
    found->second.keys = make_key_shards(blocks, layout.prefix_blocks(), widths);
    found->second.outer = make_outer_strategy(strategy, found->second.keys.segments, mesh.outer());
  }
  return found->second;
}

int ShardContext::own_prefix_blocks() const {
  return std::max(0, std::min(layout.prefix_blocks(), blocks.blocks[blocks.self + 1]) -
                         blocks.blocks[blocks.self]);
}

ShardAttention::ShardAttention(ShardContext& context, const AttentionSpec& spec,
                               std::vector<int> heads, int model_heads, int layer)
    : context_(context),
      spec_(spec),
      heads_(std::move(heads)),
      model_heads_(model_heads),
      layer_(layer),
      key_side_(context.key_side(spec.widths())) {}

at::Tensor ShardAttention::video_rows(const at::Tensor& x_BLHD) const {
  const int64_t prefix = prefix_ ? prefix_->own_rows() : 0;
  return x_BLHD.narrow(1, prefix, x_BLHD.size(1) - prefix);
}

ShardAttention::Outcome ShardAttention::forward(const ShardTensors& inputs, const Selection& saved,
                                                bool keep_lse) {
  const int threads = context_.strategy.threads;
  const double scale = 1.0 / std::sqrt(static_cast<double>(inputs.q.size(3)));
  method_ = make_method({context_.layout, context_.blocks, context_.mesh.outer(), model_heads_,
                         heads_, layer_, scale, threads},
                        spec_);
  selection_ = method_->prepare(inputs, saved);
  auto table = selection_.table;
  if (context_.has_prefix_branch()) {
    prefix_ = std::make_unique<PrefixBranch>(context_.layout, context_.blocks, key_side_.keys,
                                             context_.mesh.outer(), !context_.strategy.single_pass);
    prefix_->gather(inputs.q, inputs.k, inputs.v);
    call_.replicated = prefix_->keys();
    if (merges_prefix()) table = without_prefix_queries(table, context_.own_prefix_blocks());
  }
  Outcome outcome;
  outcome.selection = selection_;
  const int first_block = context_.blocks.blocks[context_.blocks.self];
  const auto by_model_head = [this](const auto& values) {
    return among_all(values, heads_, model_heads_);
  };
  AttentionStatistics& statistics = outcome.statistics;
  statistics.selected_pairs = static_cast<int64_t>(selection_.table->kv_block.size());
  statistics.pairs = by_model_head(executed_pairs(selection_, context_.layout, spec_, first_block));
  statistics.head_density = by_model_head(method_->head_density(selection_));
  statistics.head_coverage = by_model_head(
      head_coverage(key_side_.keys.segments, needs_of(*table), selection_.table->heads));
  statistics.density = kernels::total_of(statistics.head_density).value();
  statistics.coverage = kernels::total_of(statistics.head_coverage).value();
  statistics.domain_coverage =
      by_model_head(domain_coverage(context_.layout, context_.blocks, spec_, *selection_.table));
  statistics.kept_mass = by_model_head(selection_.kept_mass);

  {
    Timeline::Scope scope(context_.timeline, Activity::kCompute, "attention.rows");
    call_.query = {inputs.q, context_.blocks.own_offsets(), table, {}, scale, threads};
    if (context_.strategy.overlap) call_.query.progress = &context_.mesh.world();
    if (selection_.pruning) {
      pruned_.emplace(selection_.pruning, inputs.q.device(), threads);
      pruned_->prune(call_.query);
    }
    attach_device_form(call_.query);
    call_.k_BLHD = expand_rows(key_side_.keys, video_rows(inputs.k), threads);
    call_.v_BLHD = expand_rows(key_side_.keys, video_rows(inputs.v), threads);
    fine_ = empty_output(call_.query.q_BLHD);
  }
  method_->attend_first(call_.query, fine_);
  if (merges_prefix()) prefix_->start_forward(call_.query, {call_.k_BLHD, call_.v_BLHD});
  memory_ = key_side_.outer->forward(call_, fine_);
  if (merges_prefix()) prefix_->finish_forward(fine_);

  at::Tensor fine = fine_.out_BLHD, lse = fine_.lse_BHL;
  if (pruned_) {
    Timeline::Scope scope(context_.timeline, Activity::kCompute, "attention.recover");
    fine = pruned_->recover(fine);
    if (keep_lse) lse = pruned_->recover_lse(lse);
  }
  if (keep_lse) outcome.lse = lse.transpose(1, 2).contiguous();
  outcome.out = method_->finish(fine);
  return outcome;
}

std::vector<at::Tensor> ShardAttention::backward(const at::Tensor& dout) {
  const int threads = context_.strategy.threads;
  const QuerySide& query = call_.query;
  ShardGradients gradients;
  at::Tensor dfine = method_->finish_backward(dout, gradients);
  if (pruned_) {
    Timeline::Scope scope(context_.timeline, Activity::kCompute, "attention.recover");
    dfine = pruned_->recover_backward(dfine);
  }
  OutputSide output;
  {
    Timeline::Scope scope(context_.timeline, Activity::kCompute, "attention.delta",
                          [&] { return moving(fine_.out_BLHD, dfine); });
    output = output_side(fine_.out_BLHD, fine_.lse_BHL, dfine, threads);
  }
  OuterGradients outer;
  {
    Timeline::Scope scope(context_.timeline, Activity::kCompute, "attention.rows");
    const auto options = fine_.out_BLHD.options();
    outer.dq_BLHD = at::zeros_like(fine_.out_BLHD);
    outer.dk_BLHD = at::zeros(call_.k_BLHD.sizes(), options);
    outer.dv_BLHD = at::zeros(call_.v_BLHD.sizes(), options);
    if (prefix_) {
      const at::IntArrayRef sizes = call_.replicated.k.sizes();
      outer.replicated = {at::zeros(sizes, options), at::zeros(sizes, options)};
    }
  }
  if (merges_prefix()) {
    prefix_->backward(query, {call_.k_BLHD, call_.v_BLHD}, output, {outer.dk_BLHD, outer.dv_BLHD},
                      outer.replicated);
  }
  key_side_.outer->backward(call_, *memory_, output, outer);

  {
    Timeline::Scope scope(context_.timeline, Activity::kCompute, "attention.rows");
    gradients.dq = outer.dq_BLHD;
    gradients.dk = gather_row_gradients(key_side_.keys, outer.dk_BLHD, threads);
    gradients.dv = gather_row_gradients(key_side_.keys, outer.dv_BLHD, threads);
  }
  if (prefix_) {
    gradients.dk = with_prefix_rows(gradients.dk, prefix_->own_rows());
    gradients.dv = with_prefix_rows(gradients.dv, prefix_->own_rows());
    prefix_->give_back(outer.replicated, gradients.dq, gradients.dk, gradients.dv);
  }
  method_->add_gradients(query, output, gradients);
  Timeline::Scope scope(context_.timeline, Activity::kCompute, "attention.rows");
  if (pruned_) gradients.dq = pruned_->scatter_gradients(gradients.dq);

  const auto type = query.q_BLHD.scalar_type();
  std::vector<at::Tensor> result{gradients.dq.to(type), gradients.dk.to(type),
                                 gradients.dv.to(type)};
  for (const at::Tensor& gate : {gradients.dcoarse_gate, gradients.dfine_gate}) {
    if (gate.defined()) result.push_back(gate);
  }
  return result;
}

}  // namespace sprocket::parallel
