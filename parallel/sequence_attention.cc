#include "parallel/sequence_attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include "base/error.h"
#include "parallel/attention/attention_method.h"
#include "parallel/attention/domain_imports.h"
#include "parallel/attention/key_shards.h"
#include "parallel/attention/prefix_branch.h"
#include "parallel/attention/pruned_queries.h"
#include "parallel/attention/selected_plan.h"
#include "parallel/tensor_buffer.h"
#include "parallel/ulysses.h"

namespace sprocket::parallel {

// The KV rows of one pyramid and the strategy that moves them.
struct KeySide {
  KeyShards keys;
  std::unique_ptr<OuterStrategy> outer;
};

class SequenceAttention::Context {
 public:
  Context(const Mesh& mesh, TokenLayout layout, const StrategySpec& strategy)
      : mesh(mesh),
        layout(std::move(layout)),
        plan(make_shard_plan(this->layout, mesh.shape())),
        strategy(strategy),
        timeline(mesh.timeline()),
        blocks{this->layout.block_offsets, plan.outer_blocks, mesh.coordinate().outer, {}, {}},
        ulysses(mesh.ulysses(), ulysses_rows()) {}

  // Made at the first use of its widths.
  KeySide& key_side(const std::vector<int>& widths) {
    auto [found, fresh] = key_sides_.try_emplace(widths);
    if (fresh) {
      found->second.keys = make_key_shards(blocks, this->layout.prefix_blocks(), widths);
      found->second.outer =
          make_outer_strategy(strategy, found->second.keys.segments, mesh.outer());
    }
    return found->second;
  }

  bool has_prefix_branch() const { return layout.prefix_blocks() > 0 && blocks.ranks() > 1; }
  int own_prefix_blocks() const {
    return std::max(0, std::min(layout.prefix_blocks(), blocks.blocks[blocks.self + 1]) -
                           blocks.blocks[blocks.self]);
  }

  const Mesh& mesh;
  TokenLayout layout;
  ShardPlan plan;
  StrategySpec strategy;
  Timeline* timeline;
  OuterShards blocks;
  Ulysses ulysses;

 private:
  std::vector<int64_t> ulysses_rows() const {
    std::vector<int64_t> rows;
    const int first = mesh.coordinate().outer * mesh.shape().ulysses;
    for (int u = 0; u < mesh.shape().ulysses; ++u) rows.push_back(plan.tokens_of(first + u));
    return rows;
  }
  std::map<std::vector<int>, KeySide> key_sides_;
};

namespace {

using Context = SequenceAttention::Context;

// One forward and what its backward needs; owned by the autograd graph.
struct Invocation : torch::CustomClassHolder {
  std::shared_ptr<Context> context;
  AttentionSpec spec;
  int layer = -1;
  std::unique_ptr<AttentionMethod> method;
  KeySide* key_side = nullptr;
  Selection selection;
  std::unique_ptr<PrefixBranch> prefix;  // null: no prefix, or one outer rank
  OuterCall call;                        // the query side (kept queries only) and the own KV rows
  at::Tensor fine, lse;                  // of the query side
  std::unique_ptr<OuterStrategy::Memory> memory;
};

MethodContext method_context(const Context& context, const at::Tensor& q, int layer) {
  const int heads = static_cast<int>(q.size(2));
  return {context.layout,
          context.blocks,
          context.mesh.outer(),
          heads * context.mesh.shape().ulysses,
          heads * context.mesh.coordinate().ulysses,
          layer,
          1.0 / std::sqrt(static_cast<double>(q.size(3))),
          context.strategy.threads};
}

// Rows that the outer strategy moves or leaves: those of the own video tokens.
at::Tensor video_rows(const Invocation& run, const at::Tensor& x_BLHD) {
  const int64_t prefix = run.prefix ? run.prefix->own_rows() : 0;
  return x_BLHD.narrow(1, prefix, x_BLHD.size(1) - prefix);
}

at::Tensor attention_forward(Invocation& run, AttentionSlot& slot, std::vector<at::Tensor> inputs,
                             bool coarse_gate) {
  Context& context = *run.context;
  inputs = context.ulysses.scatter_heads(inputs);
  ShardTensors shard{inputs[0], inputs[1], inputs[2], {}, {}};
  if (coarse_gate) shard.coarse_gate = inputs[3];
  if (inputs.size() > (coarse_gate ? 4u : 3u)) shard.fine_gate = inputs.back();
  const MethodContext place = method_context(context, shard.q, slot.layer);

  run.method = make_method(place, run.spec);
  run.key_side = &context.key_side(run.spec.widths());
  slot.selection = run.method->prepare(shard, slot.selection);
  run.selection = slot.selection;
  const OuterShards& segments = run.key_side->keys.segments;
  const bool merges = !context.strategy.single_pass;
  auto table = run.selection.table;
  if (context.has_prefix_branch()) {
    run.prefix = std::make_unique<PrefixBranch>(context.layout, context.blocks, run.key_side->keys,
                                                context.mesh.outer(), merges);
    run.prefix->gather(shard.q, shard.k, shard.v);
    run.call.replicated = run.prefix->keys();
    if (merges) table = without_prefix_queries(table, context.own_prefix_blocks());
  }
  slot.statistics = {
      run.method->density(run.selection), coverage_of(segments, needs_of(*table)),
      static_cast<int64_t>(run.selection.table->kv_block.size()),
      domain_coverage(context.layout, context.blocks, run.spec, *run.selection.table),
      run.selection.kept_mass};

  run.call.query = {shard.q, context.blocks.own_offsets(), table, {}, place.scale, place.threads};
  if (context.strategy.overlap) run.call.query.progress = &context.mesh.outer();
  if (run.selection.pruning) prune(*run.selection.pruning, run.call.query);
  run.call.k_BLHD = expand_rows(run.key_side->keys, video_rows(run, shard.k), place.threads);
  run.call.v_BLHD = expand_rows(run.key_side->keys, video_rows(run, shard.v), place.threads);

  const at::Tensor& q = run.call.query.q_BLHD;
  const auto options = q.options().dtype(accumulator_type(q.scalar_type()));
  run.fine = at::zeros({q.size(0), q.size(1), q.size(2), q.size(3)}, options);
  run.lse = at::full({q.size(0), q.size(2), q.size(1)}, -std::numeric_limits<double>::infinity(),
                     options);
  run.method->attend_first(run.call.query, run.fine, run.lse);
  if (run.prefix && merges) {
    run.prefix->start_forward(run.call.query, {run.call.k_BLHD, run.call.v_BLHD});
  }
  run.memory = run.key_side->outer->forward(run.call, run.fine, run.lse);
  if (run.prefix && merges) run.prefix->finish_forward(run.fine, run.lse);

  at::Tensor fine = run.fine, lse = run.lse;
  if (run.selection.pruning) {
    fine = recover(*run.selection.pruning, fine, place.threads);
    if (slot.keep_lse) lse = recover_lse(*run.selection.pruning, lse, place.threads);
  }
  if (slot.keep_lse) {
    slot.lse =
        context.ulysses.gather_heads({lse.transpose(1, 2).contiguous().unsqueeze(-1)})[0].squeeze(
            -1);
  }
  return context.ulysses.gather_heads({run.method->finish(fine)})[0];
}

// The video's rows behind as many zero rows.
at::Tensor with_prefix_rows(const at::Tensor& video_BLHD, int64_t rows) {
  if (rows == 0) return video_BLHD;
  std::vector<int64_t> shape = video_BLHD.sizes().vec();
  shape[1] += rows;
  const at::Tensor all = at::zeros(shape, video_BLHD.options());
  all.narrow(1, rows, video_BLHD.size(1)).copy_(video_BLHD);
  return all;
}

// Gradients of q, k, v and of the gates there are.
std::vector<at::Tensor> attention_backward(Invocation& run, const at::Tensor& dout_rank) {
  Context& context = *run.context;
  PhaseScope phase(context.timeline, Phase::kBackward);
  LayerScope layer(context.timeline, run.layer);
  const int threads = context.strategy.threads;
  const QuerySide& query = run.call.query;

  ShardGradients gradients;
  at::Tensor dfine = run.method->finish_backward(
      context.ulysses.scatter_heads({dout_rank.contiguous()})[0], gradients);
  if (run.selection.pruning) dfine = recover_backward(*run.selection.pruning, dfine, threads);
  at::Tensor delta;
  {
    Timeline::Scope scope(context.timeline, Activity::kCompute, "attention.delta");
    delta = row_delta(run.fine, dfine, threads);
  }
  const auto options = run.fine.options();
  OuterGradients outer{at::zeros_like(run.fine),
                       at::zeros(run.call.k_BLHD.sizes(), options),
                       at::zeros(run.call.v_BLHD.sizes(), options),
                       {}};
  if (run.prefix) {
    const at::IntArrayRef sizes = run.call.replicated.k.sizes();
    outer.replicated = {at::zeros(sizes, options), at::zeros(sizes, options)};
    if (!context.strategy.single_pass) {
      run.prefix->backward(query, {run.call.k_BLHD, run.call.v_BLHD}, dfine, run.lse, delta,
                           {outer.dk_BLHD, outer.dv_BLHD}, outer.replicated);
    }
  }
  run.key_side->outer->backward(run.call, *run.memory, dfine, run.lse, delta, outer);

  gradients.dk = gather_row_gradients(run.key_side->keys, outer.dk_BLHD, threads);
  gradients.dv = gather_row_gradients(run.key_side->keys, outer.dv_BLHD, threads);
  gradients.dq = outer.dq_BLHD;
  if (run.prefix) {
    gradients.dk = with_prefix_rows(gradients.dk, run.prefix->own_rows());
    gradients.dv = with_prefix_rows(gradients.dv, run.prefix->own_rows());
    run.prefix->give_back(outer.replicated, gradients.dq, gradients.dk, gradients.dv);
  }
  run.method->add_gradients(query, dfine, run.lse, delta, gradients);
  if (run.selection.pruning) {
    gradients.dq = scatter_gradients(*run.selection.pruning, gradients.dq, threads);
  }

  const auto type = query.q_BLHD.scalar_type();
  std::vector<at::Tensor> result{gradients.dq.to(type), gradients.dk.to(type),
                                 gradients.dv.to(type)};
  for (const at::Tensor& gate : {gradients.dcoarse_gate, gradients.dfine_gate}) {
    if (gate.defined()) result.push_back(gate);
  }
  return context.ulysses.gather_heads(result);
}

class SequenceAttentionFunction : public torch::autograd::Function<SequenceAttentionFunction> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& q,
                            const at::Tensor& k, const at::Tensor& v,
                            const std::optional<at::Tensor>& coarse_gate,
                            const std::optional<at::Tensor>& fine_gate,
                            c10::intrusive_ptr<Invocation> invocation, AttentionSlot* slot) {
    std::vector<at::Tensor> inputs{q.contiguous(), k.contiguous(), v.contiguous()};
    for (const auto& gate : {coarse_gate, fine_gate}) {
      if (gate) inputs.push_back(gate->contiguous());
    }
    ctx->saved_data["invocation"] = c10::IValue::make_capsule(invocation);
    ctx->saved_data["coarse_gate"] = coarse_gate.has_value();
    ctx->saved_data["fine_gate"] = fine_gate.has_value();
    return attention_forward(*invocation, *slot, std::move(inputs), coarse_gate.has_value());
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list gradients) {
    auto invocation =
        c10::static_intrusive_pointer_cast<Invocation>(ctx->saved_data["invocation"].toCapsule());
    const std::vector<at::Tensor> results = attention_backward(*invocation, gradients[0]);
    const bool coarse_gate = ctx->saved_data["coarse_gate"].toBool();
    const bool fine_gate = ctx->saved_data["fine_gate"].toBool();
    ctx->saved_data.clear();
    return {results[0],
            results[1],
            results[2],
            coarse_gate ? results[3] : at::Tensor(),
            fine_gate ? results.back() : at::Tensor(),
            at::Tensor(),
            at::Tensor()};
  }
};

at::Tensor detached(const at::Tensor& x) { return x.defined() ? x.detach() : x; }

std::string shape_text(const at::Tensor& x) {
  return fmt::format("[{}]", fmt::join(x.sizes(), ", "));
}

void check_q(const at::Tensor& q, const Context& context) {
  const Grid& grid = context.layout.spec.grid;
  const int64_t rows = context.plan.tokens_of(context.mesh.sequence().rank());
  SPROCKET_CHECK(q.dim() == 4 && q.size(1) == rows,
                 "q: expected [B, {}, H, D], this rank's tokens of a grid of {} x {} x {} and {} "
                 "prefix tokens, found {}",
                 rows, grid.t, grid.h, grid.w, context.layout.prefix_tokens(), shape_text(q));
  const at::ScalarType type = q.scalar_type();
  SPROCKET_CHECK(type == at::kDouble || type == at::kFloat || type == at::kBFloat16,
                 "q: expected f64, f32 or bf16, found {}", at::toString(type));
}

void check_like_q(const char* name, const at::Tensor& x, const at::Tensor& q, bool wanted) {
  SPROCKET_CHECK(x.defined() == wanted, "{}: expected {}, found {}", name,
                 wanted ? "a tensor" : "none with this method", wanted ? "none" : "one");
  if (!wanted) return;
  SPROCKET_CHECK(x.sizes() == q.sizes(), "{}: expected the shape of q, {}, found {}", name,
                 shape_text(q), shape_text(x));
  SPROCKET_CHECK(x.scalar_type() == q.scalar_type(), "{}: expected the type of q, {}, found {}",
                 name, at::toString(q.scalar_type()), at::toString(x.scalar_type()));
}

std::optional<at::Tensor> optional_of(const at::Tensor& x) {
  return x.defined() ? std::optional(x) : std::nullopt;
}

}  // namespace

SequenceAttention::SequenceAttention(const Mesh& mesh, TokenLayout layout,
                                     const StrategySpec& strategy)
    : context_(std::make_shared<Context>(mesh, std::move(layout), strategy)) {}

SequenceAttention::~SequenceAttention() = default;

at::Tensor SequenceAttention::forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                      const AttentionGates& gates, const AttentionSpec& spec,
                                      AttentionSlot& slot) {
  check_q(q, *context_);
  check_like_q("k", k, q, true);
  check_like_q("v", v, q, true);
  check_like_q("the coarse gate", gates.coarse, q, spec.coarse_gated());
  check_like_q("the fine gate", gates.fine, q, spec.fine_gated());
  if (q.size(2) % context_->mesh.shape().ulysses != 0) {
    throw ConfigError(fmt::format("parallel.ulysses: {} does not divide model.heads: {}",
                                  context_->mesh.shape().ulysses, q.size(2)));
  }
  if (slot.keep_inputs) {
    slot.inputs = {
        detached(q), detached(k), detached(v), {detached(gates.coarse), detached(gates.fine)}};
  }
  auto invocation = c10::make_intrusive<Invocation>();
  invocation->context = context_;
  invocation->spec = spec;
  if (context_->timeline) invocation->layer = context_->timeline->position.layer;
  return SequenceAttentionFunction::apply(q, k, v, optional_of(gates.coarse),
                                          optional_of(gates.fine), std::move(invocation), &slot);
}

const TokenLayout& SequenceAttention::layout() const { return context_->layout; }
const ShardPlan& SequenceAttention::shards() const { return context_->plan; }

}  // namespace sprocket::parallel
