#include "parallel/sequence_attention.h"

#include <algorithm>

#include <fmt/ranges.h>
#include <torch/csrc/autograd/custom_function.h>

#include "base/error.h"
#include "parallel/attention/selection_heads.h"
#include "parallel/attention/shard_attention.h"
#include "parallel/head_balance.h"
#include "parallel/tensor_buffer.h"
#include "parallel/ulysses.h"

namespace sprocket::parallel {

class SequenceAttention::Context {
 public:
  Context(const Mesh& mesh, TokenLayout layout, const StrategySpec& strategy)
      : shard(mesh, std::move(layout), strategy),
        ulysses(mesh.tensors().ulysses(), ulysses_rows()),
        balancer(mesh.sequence(), mesh.shape()) {}

  ShardContext shard;
  Ulysses ulysses;
  HeadBalancer balancer;

 private:
  std::vector<int64_t> ulysses_rows() const {
    std::vector<int64_t> rows;
    const int first = shard.mesh.coordinate().outer * shard.mesh.shape().ulysses;
    for (int u = 0; u < shard.mesh.shape().ulysses; ++u) {
      rows.push_back(shard.plan.tokens_of(first + u));
    }
    return rows;
  }
};

int head_groups(const StrategySpec& strategy, const MeshShape& mesh, const AttentionSpec& spec,
                int64_t heads) {
  if (mesh.ulysses == 1 || mesh.outer > 1) return 1;
  if (strategy.head_groups > 0) return strategy.head_groups;
  const int64_t own = heads / mesh.ulysses;
  const bool whole_budget_groups =
      spec.budget.head_group == 0 || own / 2 % spec.budget.head_group == 0;
  return own % 2 == 0 && whole_budget_groups ? 2 : 1;
}

namespace {

// Heads that compete for one budget of imports stay together.
int heads_that_move_together(const AttentionSpec& spec) {
  return spec.budget.limits() ? std::max(spec.budget.head_group, 1) : 1;
}

}  // namespace

bool balances_heads(const StrategySpec& strategy, const MeshShape& mesh, const AttentionSpec& spec,
                    int64_t heads) {
  if (!strategy.balance_heads || mesh.ulysses == 1) return false;
  switch (spec.method) {
    case MethodKind::kDense:
    case MethodKind::kVsa:
    case MethodKind::kSlidingTile:
      return false;
    case MethodKind::kBsa:
    case MethodKind::kPsa:
    case MethodKind::kAsa:
      break;
  }
  const int64_t own = heads / mesh.ulysses, together = heads_that_move_together(spec);
  return own > together && own % together == 0;
}

namespace {

using Context = SequenceAttention::Context;

// One forward and what its backward needs; owned by the autograd graph.
struct Invocation : torch::CustomClassHolder {
  std::shared_ptr<Context> context;
  AttentionSpec spec;
  int layer = -1;  // of the timeline
  bool coarse_gate = false;
  std::vector<int> head_order;         // Selection::head_order
  std::vector<ShardAttention> groups;  // of heads

  HeadGroup group(size_t index) const {
    return {static_cast<int>(index), static_cast<int>(groups.size()), head_order};
  }
  // While a group of heads is worked on, the next one arrives and the former one leaves.
  template <class Work>
  std::vector<at::Tensor> pipeline(const std::vector<at::Tensor>& inputs, Work work) {
    const Ulysses& ulysses = context->ulysses;
    const bool overlap = context->shard.strategy.overlap;
    const StreamView stream = stream_of(inputs[0]);
    std::vector<Ulysses::Movement> leaving(groups.size());
    Ulysses::Movement arriving = ulysses.start_scatter(inputs, group(0));
    for (size_t i = 0; i < groups.size(); ++i) {
      const std::vector<at::Tensor> here = ulysses.finish_scatter(arriving);
      if (i + 1 < groups.size()) arriving = ulysses.start_scatter(inputs, group(i + 1));
      if (!overlap) arriving.work.wait(stream);
      leaving[i] = ulysses.start_gather(work(i, here));
      if (!overlap) leaving[i].work.wait(stream);
    }
    std::vector<at::Tensor> results;
    for (size_t i = 0; i < groups.size(); ++i) ulysses.finish_gather(leaving[i], group(i), results);
    return results;
  }
};

ShardTensors shard_tensors(const std::vector<at::Tensor>& inputs, bool coarse_gate) {
  ShardTensors shard{inputs[0], inputs[1], inputs[2], {}, {}};
  if (coarse_gate) shard.coarse_gate = inputs[3];
  if (inputs.size() > (coarse_gate ? 4u : 3u)) shard.fine_gate = inputs.back();
  return shard;
}

template <class T>
void add(std::vector<T>& sums, const std::vector<T>& values) {
  sums.resize(values.size());
  for (size_t i = 0; i < values.size(); ++i) sums[i] += values[i];
}

// Of groups of heads.
AttentionStatistics joined(const std::vector<AttentionStatistics>& parts) {
  AttentionStatistics all;
  for (const AttentionStatistics& part : parts) {
    all.selected_pairs += part.selected_pairs;
    add(all.pairs, part.pairs);
    add(all.head_density, part.head_density);
    add(all.head_coverage, part.head_coverage);
    add(all.domain_coverage, part.domain_coverage);
    add(all.kept_mass, part.kept_mass);
  }
  all.density = kernels::total_of(all.head_density).value();
  all.coverage = kernels::total_of(all.head_coverage).value();
  return all;
}

at::Tensor attention_forward(Invocation& run, AttentionSlot& slot,
                             const std::vector<at::Tensor>& inputs) {
  ShardContext& shard = run.context->shard;
  const int model_heads = static_cast<int>(inputs[0].size(2));
  const int own = model_heads / shard.mesh.shape().ulysses;
  const int groups = head_groups(shard.strategy, shard.mesh.shape(), run.spec, model_heads);
  const int heads = own / groups;
  HeadBalancer& balancer = run.context->balancer;
  const bool selects = !slot.selection.table;
  const bool balances =
      selects && balances_heads(shard.strategy, shard.mesh.shape(), run.spec, model_heads);
  run.head_order = balances
                       ? balancer.order(slot.layer, model_heads, heads_that_move_together(run.spec))
                       : slot.selection.head_order;
  const std::vector<int> held = heads_of_rank(run.head_order, shard.mesh.coordinate().ulysses,
                                              shard.mesh.shape().ulysses, model_heads);
  run.groups.reserve(groups);
  for (int i = 0; i < groups; ++i) {
    run.groups.emplace_back(
        shard, run.spec, std::vector<int>(held.begin() + i * heads, held.begin() + (i + 1) * heads),
        model_heads, slot.layer);
  }
  std::vector<Selection> selections;
  std::vector<AttentionStatistics> statistics;
  std::vector<at::Tensor> lse(groups);
  const at::Tensor out = run.pipeline(inputs, [&](size_t i, const std::vector<at::Tensor>& here) {
    const int first = static_cast<int>(i) * heads;
    ShardAttention::Outcome outcome =
        run.groups[i].forward(shard_tensors(here, run.coarse_gate),
                              heads_of(slot.selection, first, heads), slot.keep_lse);
    selections.push_back(outcome.selection);
    statistics.push_back(std::move(outcome.statistics));
    lse[i] = outcome.lse;
    return std::vector<at::Tensor>{outcome.out};
  })[0];
  slot.statistics = joined(statistics);
  if (selects) {
    slot.selection = join_heads(selections);
    slot.selection.head_order = run.head_order;
  }
  if (balances) {
    std::vector<int64_t> cost;
    for (const int head : held) cost.push_back(slot.statistics.pairs[head]);
    balancer.give(slot.layer, run.head_order, cost);
  }
  if (slot.keep_lse) {
    std::vector<at::Tensor> rows;
    for (int i = 0; i < groups; ++i) {
      Ulysses::Movement leaving = run.context->ulysses.start_gather({lse[i].unsqueeze(-1)});
      run.context->ulysses.finish_gather(leaving, run.group(i), rows);
    }
    slot.lse = rows[0].squeeze(-1);
  }
  return out;
}

// Gradients of q, k, v and of the gates there are.
std::vector<at::Tensor> attention_backward(Invocation& run, const at::Tensor& dout) {
  PhaseScope phase(run.context->shard.timeline, Phase::kBackward);
  LayerScope layer(run.context->shard.timeline, run.layer);
  return run.pipeline({dout.contiguous()}, [&](size_t i, const std::vector<at::Tensor>& here) {
    return run.groups[i].backward(here[0]);
  });
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
    invocation->coarse_gate = coarse_gate.has_value();
    return attention_forward(*invocation, *slot, inputs);
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
  const Grid& grid = context.shard.layout.spec.grid;
  const int64_t rows = context.shard.plan.tokens_of(context.shard.mesh.sequence().rank());
  SPROCKET_CHECK(q.dim() == 4 && q.size(1) == rows,
                 "q: expected [B, {}, H, D], this rank's tokens of a grid of {} x {} x {} and {} "
                 "prefix tokens, found {}",
                 rows, grid.t, grid.h, grid.w, context.shard.layout.prefix_tokens(), shape_text(q));
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
  if (q.size(2) % context_->shard.mesh.shape().ulysses != 0) {
    throw ConfigError(fmt::format("parallel.ulysses: {} does not divide model.heads: {}",
                                  context_->shard.mesh.shape().ulysses, q.size(2)));
  }
  if (slot.keep_inputs) {
    slot.inputs = {
        detached(q), detached(k), detached(v), {detached(gates.coarse), detached(gates.fine)}};
  }
  auto invocation = c10::make_intrusive<Invocation>();
  invocation->context = context_;
  invocation->spec = spec;
  if (context_->shard.timeline) invocation->layer = context_->shard.timeline->position.layer;
  return SequenceAttentionFunction::apply(q, k, v, optional_of(gates.coarse),
                                          optional_of(gates.fine), std::move(invocation), &slot);
}

void SequenceAttention::settle() { context_->balancer.settle(); }

const TokenLayout& SequenceAttention::layout() const { return context_->shard.layout; }
const ShardPlan& SequenceAttention::shards() const { return context_->shard.plan; }

}  // namespace sprocket::parallel
