#include "parallel/sequence_attention.h"

#include <cmath>
#include <limits>

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include "base/error.h"
#include "kernels/block_selection.h"
#include "kernels/coarse_combine.h"
#include "parallel/attention/coarse_branch.h"
#include "parallel/attention/outer_strategy.h"
#include "parallel/attention/selected_plan.h"
#include "parallel/tensor_buffer.h"
#include "parallel/ulysses.h"

namespace sprocket::parallel {

class SequenceAttention::Context {
 public:
  Context(const Mesh& mesh, TokenLayout layout, const StrategySpec& strategy)
      : mesh(mesh),
        layout(std::move(layout)),
        plan(make_shard_plan(this->layout, mesh.shape())),
        threads(strategy.threads),
        timeline(mesh.timeline()),
        shards{this->layout.block_offsets, plan.outer_blocks, mesh.coordinate().outer},
        ulysses(mesh.ulysses(), ulysses_rows()),
        outer(make_outer_strategy(strategy, shards, mesh.outer())) {}

  const Mesh& mesh;
  TokenLayout layout;
  ShardPlan plan;
  int threads;
  Timeline* timeline;
  OuterShards shards;
  Ulysses ulysses;
  std::unique_ptr<OuterStrategy> outer;

 private:
  std::vector<int64_t> ulysses_rows() const {
    std::vector<int64_t> rows;
    const int first = mesh.coordinate().outer * mesh.shape().ulysses;
    for (int u = 0; u < mesh.shape().ulysses; ++u) rows.push_back(plan.tokens_of(first + u));
    return rows;
  }
};

namespace {

using Context = SequenceAttention::Context;

kernels::SegmentTable select(const Context& context, const AttentionSpec& spec,
                             const CoarseScores& coarse) {
  const auto& scores = coarse.scores;
  const int batch = static_cast<int>(scores.size(0)), heads = static_cast<int>(scores.size(1));
  const int query_blocks = static_cast<int>(scores.size(2)),
            kv_blocks = static_cast<int>(scores.size(3));
  const int k = kernels::selected_count(spec.sparsity, kv_blocks);
  const bool budgeted = context.layout.spec.domains > 1 && spec.max_coverage < Decimal::ratio(1, 0);
  if (budgeted && context.mesh.shape().ulysses > 1 &&
      (spec.budget_head_group < 1 || heads % spec.budget_head_group != 0)) {
    throw ConfigError(
        fmt::format("attention.budget_head_group: {} with parallel.ulysses: {}; a rank holds {} "
                    "heads, so the group "
                    "must be a divisor of {} (0, all heads, needs ulysses: 1)",
                    spec.budget_head_group, context.mesh.shape().ulysses, heads, heads));
  }
  const kernels::DomainBudget budget{context.layout.domain_blocks, spec.max_coverage,
                                     spec.budget_head_group};
  const auto run = [&](auto zero) {
    using A = decltype(zero);
    const A* s = static_cast<const A*>(scores.data_ptr());
    if (!budgeted)
      return kernels::select_top_k<A>(s, batch, heads, query_blocks, kv_blocks, k, context.threads);
    return kernels::select_with_budget<A>(s, static_cast<const A*>(coarse.probabilities.data_ptr()),
                                          batch, heads, context.shards.blocks[context.shards.self],
                                          query_blocks, kv_blocks, k, budget, context.threads);
  };
  return scores.scalar_type() == at::kDouble ? run(double{}) : run(float{});
}

AttentionStatistics statistics_of(const OuterShards& shards, const kernels::SegmentTable& table) {
  return {table.density(), coverage_of(shards, needs_of(table)),
          static_cast<int64_t>(table.kv_block.size())};
}

// What the backward needs; owned by the autograd graph.
struct Invocation : torch::CustomClassHolder {
  std::shared_ptr<Context> context;
  AttentionSpec spec;
  OuterCall call;  // the outer shard's q, k, v
  at::Tensor gate, fine, lse;
  CoarseSummaries summaries;
  at::Tensor coarse;
  std::unique_ptr<OuterStrategy::Memory> memory;
  int layer = -1;

  bool has_coarse() const { return coarse.defined(); }
};

at::Tensor attention_forward(Invocation& run, AttentionSlot& slot, std::vector<at::Tensor> inputs) {
  Context& context = *run.context;
  const bool gated = inputs.size() == 4;
  inputs = context.ulysses.scatter_heads(inputs);
  const at::Tensor &q = inputs[0], &k = inputs[1], &v = inputs[2];
  if (gated) run.gate = inputs[3];
  const int batch = static_cast<int>(q.size(0)), heads = static_cast<int>(q.size(2));
  const double scale = 1.0 / std::sqrt(static_cast<double>(q.size(3)));

  if (run.spec.method == MethodKind::kVsa) {
    run.summaries =
        gather_summaries(context.shards, context.mesh.outer(), q, k, v, context.threads);
    Timeline::Scope scope(context.timeline, Activity::kCompute, "attention.select");
    const CoarseScores coarse = coarse_scores(run.summaries, scale, context.threads);
    if (!slot.table) {
      slot.table = std::make_shared<kernels::SegmentTable>(select(context, run.spec, coarse));
    }
    if (run.spec.coarse != CoarseBranch::kNone) {
      run.coarse = coarse_output(run.summaries, coarse.probabilities, context.threads);
    }
  } else if (!slot.table) {
    const int own =
        context.shards.blocks[context.shards.self + 1] - context.shards.blocks[context.shards.self];
    slot.table = std::make_shared<kernels::SegmentTable>(
        kernels::make_dense_table(batch, heads, own, context.layout.blocks()));
  }
  slot.statistics = statistics_of(context.shards, *slot.table);

  run.call = {{q, context.shards.own_offsets(), slot.table, scale, context.threads}, k, v};
  const auto options = q.options().dtype(accumulator_type(q.scalar_type()));
  run.fine = at::zeros({q.size(0), q.size(1), q.size(2), q.size(3)}, options);
  run.lse = at::full({q.size(0), q.size(2), q.size(1)}, -std::numeric_limits<double>::infinity(),
                     options);
  run.memory = context.outer->forward(run.call, run.fine, run.lse);

  at::Tensor out;
  if (run.has_coarse()) {
    Timeline::Scope scope(context.timeline, Activity::kCompute, "attention.combine");
    out = at::empty({q.size(0), q.size(1), q.size(2), q.size(3)}, q.options());
    dispatch_compute_type(q.scalar_type(), [&](auto zero) {
      using T = decltype(zero);
      using A = kernels::Accumulator<T>;
      kernels::combine_coarse<T>(
          const_head_view<A>(run.fine),
          gated ? const_head_view<T>(run.gate) : kernels::HeadView<const T>{},
          static_cast<const A*>(run.coarse.data_ptr()), run.call.query.query_offsets, batch, heads,
          static_cast<int>(q.size(3)), head_view<T>(out), context.threads);
    });
  } else {
    out = run.fine.to(q.scalar_type());
  }
  return context.ulysses.gather_heads({out})[0];
}

// Gradients of q, k, v and, when gated, of the gate.
std::vector<at::Tensor> attention_backward(Invocation& run, const at::Tensor& dout_rank) {
  Context& context = *run.context;
  PhaseScope phase(context.timeline, Phase::kBackward);
  LayerScope layer(context.timeline, run.layer);
  const at::Tensor dout = context.ulysses.scatter_heads({dout_rank.contiguous()})[0];
  const at::Tensor& q = run.call.query.q_BLHD;
  const at::Tensor dq = at::zeros_like(run.fine), dk = at::zeros_like(run.fine),
                   dv = at::zeros_like(run.fine);
  at::Tensor delta;
  {
    Timeline::Scope scope(context.timeline, Activity::kCompute, "attention.delta");
    delta = row_delta(run.fine, dout, context.threads);
  }
  context.outer->backward(run.call, *run.memory, dout, run.lse, delta, dq, dk, dv);

  at::Tensor dgate;
  if (run.has_coarse()) {
    at::Tensor dcoarse = at::empty_like(run.coarse);
    if (run.gate.defined()) dgate = at::empty_like(run.gate);
    {
      Timeline::Scope scope(context.timeline, Activity::kCompute, "attention.combine");
      dispatch_compute_type(q.scalar_type(), [&](auto zero) {
        using T = decltype(zero);
        using A = kernels::Accumulator<T>;
        kernels::combine_coarse_backward<T>(
            const_head_view<T>(dout),
            dgate.defined() ? const_head_view<T>(run.gate) : kernels::HeadView<const T>{},
            static_cast<const A*>(run.coarse.data_ptr()), run.call.query.query_offsets,
            static_cast<int>(q.size(0)), static_cast<int>(q.size(2)), static_cast<int>(q.size(3)),
            static_cast<A*>(dcoarse.data_ptr()),
            dgate.defined() ? head_view<T>(dgate) : kernels::HeadView<T>{}, context.threads);
      });
    }
    add_coarse_gradients(context.shards, context.mesh.outer(), run.summaries, dcoarse,
                         run.call.query.scale, dq, dk, dv, context.threads);
  }
  std::vector<at::Tensor> gradients{dq.to(q.scalar_type()), dk.to(q.scalar_type()),
                                    dv.to(q.scalar_type())};
  if (dgate.defined()) gradients.push_back(dgate);
  return context.ulysses.gather_heads(gradients);
}

class SequenceAttentionFunction : public torch::autograd::Function<SequenceAttentionFunction> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& q,
                            const at::Tensor& k, const at::Tensor& v,
                            const std::optional<at::Tensor>& gate,
                            c10::intrusive_ptr<Invocation> invocation, AttentionSlot* slot) {
    std::vector<at::Tensor> inputs{q.contiguous(), k.contiguous(), v.contiguous()};
    if (gate) inputs.push_back(gate->contiguous());
    ctx->saved_data["invocation"] = c10::IValue::make_capsule(invocation);
    return attention_forward(*invocation, *slot, std::move(inputs));
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list gradients) {
    auto invocation =
        c10::static_intrusive_pointer_cast<Invocation>(ctx->saved_data["invocation"].toCapsule());
    torch::autograd::variable_list result = attention_backward(*invocation, gradients[0]);
    result.resize(6);
    ctx->saved_data.clear();
    return result;
  }
};

}  // namespace

SequenceAttention::SequenceAttention(const Mesh& mesh, TokenLayout layout,
                                     const StrategySpec& strategy)
    : context_(std::make_shared<Context>(mesh, std::move(layout), strategy)) {}

SequenceAttention::~SequenceAttention() = default;

at::Tensor SequenceAttention::forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                      const at::Tensor& gate, const AttentionSpec& spec,
                                      AttentionSlot& slot) {
  const int64_t rows = context_->plan.tokens_of(context_->mesh.sequence().rank());
  SPROCKET_CHECK(
      q.dim() == 4 && q.size(1) == rows && k.sizes() == q.sizes() && v.sizes() == q.sizes(),
      "expected q, k, v of [B, {}, H, D]", rows);
  const bool wants_gate = spec.method == MethodKind::kVsa && spec.coarse == CoarseBranch::kGated;
  SPROCKET_CHECK_EQ(gate.defined(), wants_gate);
  if (q.size(2) % context_->mesh.shape().ulysses != 0) {
    throw ConfigError(fmt::format("parallel.ulysses: {} does not divide model.heads: {}",
                                  context_->mesh.shape().ulysses, q.size(2)));
  }
  auto invocation = c10::make_intrusive<Invocation>();
  invocation->context = context_;
  invocation->spec = spec;
  if (context_->timeline) invocation->layer = context_->timeline->position.layer;
  return SequenceAttentionFunction::apply(
      q, k, v, gate.defined() ? std::optional(gate) : std::nullopt, std::move(invocation), &slot);
}

const TokenLayout& SequenceAttention::layout() const { return context_->layout; }
const ShardPlan& SequenceAttention::shards() const { return context_->plan; }

}  // namespace sprocket::parallel
