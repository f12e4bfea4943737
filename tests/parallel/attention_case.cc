#include "tests/parallel/attention_case.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <stdexcept>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/error.h"
#include "base/philox.h"

namespace sprocket::parallel::testing {
namespace {

at::Tensor random_tensor(at::IntArrayRef shape, uint64_t stream) {
  at::Tensor x = at::empty(shape, at::kFloat);
  RandomStream(7, 0, stream, RandomPurpose::kTest)
      .normal({x.data_ptr<float>(), static_cast<size_t>(x.numel())});
  return x.to(at::kDouble);
}

const char* name_of(MethodKind kind) {
  switch (kind) {
    case MethodKind::kDense:
      return "dense";
    case MethodKind::kVsa:
      return "vsa";
    case MethodKind::kBsa:
      return "bsa";
    case MethodKind::kPsa:
      return "psa";
    case MethodKind::kAsa:
      return "asa";
    case MethodKind::kSlidingTile:
      return "sliding_tile";
  }
  throw InternalError("unknown attention method");
}

const char* name_of(OuterStrategyKind kind) {
  switch (kind) {
    case OuterStrategyKind::kAllGather:
      return "all_gather";
    case OuterStrategyKind::kRing:
      return "ring";
    case OuterStrategyKind::kSelected:
      return "selected";
  }
  throw InternalError("unknown strategy");
}

// All pairs of tensors that both results have; throws when one has what the other lacks.
template <class Visit>
void for_each_pair(const AttentionResult& a, const AttentionResult& b, Visit visit) {
  const std::pair<at::Tensor, at::Tensor> pairs[] = {
      {a.out, b.out},
      {a.lse, b.lse},
      {a.dq, b.dq},
      {a.dk, b.dk},
      {a.dv, b.dv},
      {a.dgates.coarse, b.dgates.coarse},
      {a.dgates.fine, b.dgates.fine},
  };
  for (const auto& [x, y] : pairs) {
    if (x.defined() != y.defined()) throw std::runtime_error("a gradient is missing");
    if (x.defined()) visit(x, y);
  }
}

template <class T>
bool equal_values(const std::shared_ptr<const T>& a, const std::shared_ptr<const T>& b) {
  return a && b ? *a == *b : a == b;
}

}  // namespace

std::string AttentionCase::problem() const {
  std::string text = name_of(spec.method);
  if (!label.empty()) text += "_" + label;
  if (layout.domains > 1) {
    text +=
        fmt::format("_{}{}g{}", spec.budget.form == kernels::BudgetForm::kTree ? "tree" : "flat",
                    layout.domains, spec.budget.head_group);
    for (const Decimal& share : spec.budget.max_coverage) text += "x" + share.to_string();
  }
  return fmt::format("{} grid {}x{}x{} prefix {} H {} D {}", text, layout.grid.t, layout.grid.h,
                     layout.grid.w, layout.prefix, heads, head_dim);
}

std::string AttentionCase::name() const {
  return fmt::format("{} {} outer {} ulysses {}{}", problem(), name_of(strategy.outer), mesh.outer,
                     mesh.ulysses, strategy.keep_remote_kv ? "" : " refetch");
}

AttentionTensors make_inputs(const AttentionCase& c) {
  const int64_t tokens = make_token_layout(c.layout).tokens();
  const std::vector<int64_t> shape{c.batch, tokens, c.heads, c.head_dim};
  const at::Tensor group = at::arange(tokens).div(4, "floor");
  const auto make = [&](uint64_t stream) {
    if (c.inputs.constant) return at::full(shape, 0.5, at::kDouble);
    at::Tensor x = random_tensor(shape, stream);
    if (c.inputs.correlation > 0) {
      x = x + c.inputs.correlation * random_tensor(shape, stream + 100).index_select(1, group);
    }
    return x;
  };
  AttentionTensors inputs{(make(1) * c.inputs.q_factor).to(c.dtype),
                          make(2).to(c.dtype),
                          random_tensor(shape, 3).to(c.dtype),
                          random_tensor(shape, 5).to(c.dtype),
                          {}};
  if (c.spec.coarse_gated()) inputs.gates.coarse = random_tensor(shape, 4).to(c.dtype);
  if (c.spec.fine_gated()) inputs.gates.fine = random_tensor(shape, 6).to(c.dtype);
  return inputs;
}

AttentionResult run_sharded(const AttentionCase& c, const AttentionTensors& inputs,
                            const Mesh& mesh) {
  AttentionSlot slot;
  return run_sharded(c, inputs, mesh, slot);
}

AttentionResult run_sharded(const AttentionCase& c, const AttentionTensors& inputs,
                            const Mesh& mesh, AttentionSlot& slot) {
  SequenceAttention attention(mesh, make_token_layout(c.layout), c.strategy);
  return run_sharded(c, inputs, mesh, attention, slot);
}

AttentionResult run_sharded(const AttentionCase& c, const AttentionTensors& inputs,
                            const Mesh& mesh, SequenceAttention& attention, AttentionSlot& slot) {
  const int rank = mesh.sequence().rank();
  const int64_t first = attention.shards().rank_tokens[rank],
                count = attention.shards().tokens_of(rank);
  const auto own = [&](const at::Tensor& x) {
    return x.defined()
               ? x.narrow(1, first, count).detach().clone().to(mesh.device()).requires_grad_(true)
               : at::Tensor();
  };
  const at::Tensor q = own(inputs.q), k = own(inputs.k), v = own(inputs.v);
  const AttentionGates gates{own(inputs.gates.coarse), own(inputs.gates.fine)};
  slot.layer = c.layer;
  slot.keep_lse = c.keep_lse;
  if (mesh.timeline()) mesh.timeline()->position.phase = Phase::kForward;
  const at::Tensor out = attention.forward(q, k, v, gates, c.spec, slot);
  out.backward(inputs.dout.narrow(1, first, count).to(mesh.device()));
  const auto on_host = [](const at::Tensor& x) { return x.defined() ? x.cpu() : at::Tensor(); };
  const auto gradient = [&](const at::Tensor& x) {
    return x.defined() ? on_host(x.grad()) : at::Tensor();
  };
  return {out.detach().cpu(), on_host(slot.lse), gradient(q),
          gradient(k),        gradient(v),       {gradient(gates.coarse), gradient(gates.fine)},
          slot.statistics,    slot.selection};
}

bool bitwise_equal(const AttentionResult& a, const AttentionResult& b) {
  bool equal = equal_values(a.selection.table, b.selection.table) &&
               equal_values(a.selection.pruning, b.selection.pruning) &&
               equal_values(a.selection.global_table, b.selection.global_table);
  for_each_pair(a, b, [&](const at::Tensor& x, const at::Tensor& y) { equal &= x.equal(y); });
  return equal;
}

double largest_difference(const AttentionResult& whole, const AttentionResult& part,
                          const ShardPlan& plan, int sequence_rank) {
  const int64_t first = plan.rank_tokens[sequence_rank], count = plan.tokens_of(sequence_rank);
  double largest = 0;
  for_each_pair(whole, part, [&](const at::Tensor& all, const at::Tensor& own) {
    if (count == 0) return;
    const at::Tensor x = all.narrow(1, first, count).to(at::kDouble), y = own.to(at::kDouble);
    // Rows without keys have the LSE -infinity in both.
    const double difference = (x - y).abs().masked_fill(x == y, 0).max().item<double>();
    largest = std::isnan(difference) ? difference : std::max(largest, difference);
  });
  return largest;
}

std::vector<AttentionCase> method_cases() {
  std::vector<AttentionCase> cases;
  const auto add = [&](MethodKind method, const char* label) -> AttentionCase& {
    AttentionCase& c = cases.emplace_back();
    c.spec.method = method;
    c.label = label;
    return c;
  };
  const auto along_curve = [](AttentionCase& c, int block_tokens) {
    c.layout.order = BlockOrder::kHilbert;
    c.layout.block_tokens = block_tokens;
  };
  add(MethodKind::kDense, "");
  add(MethodKind::kVsa, "").spec.vsa.sparsity = Decimal::parse("0.7");
  {
    AttentionCase& c = add(MethodKind::kVsa, "prefix");
    c.layout.prefix = {5, 0, 20};
    c.layout.prefix_block_tokens = 16;
    c.spec.vsa.sparsity = Decimal::parse("0.8");
    c.spec.vsa.fine_gate = true;
    c.spec.vsa.query_parts = 2;
    c.spec.vsa.key_parts = 4;
  }
  {
    AttentionCase& c = add(MethodKind::kVsa, "compete");
    c.layout.prefix = {20};
    c.layout.prefix_block_tokens = 8;
    c.spec.vsa.sparsity = Decimal::parse("0.8");
    c.spec.vsa.coarse = CoarseBranch::kAdd;
    c.spec.vsa.prefix = kernels::PrefixRule::kCompete;
  }
  {
    AttentionCase& c = add(MethodKind::kBsa, "");
    c.layout.prefix = {9};
    c.spec.bsa.threshold.min_blocks = 1;
    c.spec.bsa.threshold.tau = 0.6;
  }
  {
    AttentionCase& c = add(MethodKind::kPsa, "");
    c.layout.prefix = {7};
    along_curve(c, 22);
    c.spec.psa.sampling = {8, 3, 11};
    c.spec.psa.levels.thresholds = {Decimal::parse("0.4"), Decimal::parse("0.5"),
                                    Decimal::parse("0.6"), Decimal::parse("0.8")};
    c.spec.psa.similarity = {0.3, 0.2, 0.1};
    c.inputs.correlation = 1;
  }
  {
    AttentionCase& c = add(MethodKind::kAsa, "global");
    c.layout.prefix = {7};
    along_curve(c, 16);
    c.spec.asa.sampling = {5, 3, 11};
    c.spec.asa.selection.most = Decimal::parse("0.3");
    c.spec.asa.global_width = 6;
  }
  {
    AttentionCase& c = add(MethodKind::kAsa, "exclude");
    along_curve(c, 16);
    c.spec.asa.selection.mass = Decimal::parse("0.5");
    c.spec.asa.selection.most = Decimal::parse("0.4");
    c.spec.asa.global_width = 4;
    c.spec.asa.exclude_selected = true;
  }
  {
    AttentionCase& c = add(MethodKind::kSlidingTile, "");
    c.layout.cube = {2, 4, 3};
    c.layout.prefix = {6};
    c.spec.sliding_tile.window = {2, 1, 3};
  }
  return cases;
}

std::vector<AttentionCase> other_prefix_cases() {
  std::vector<AttentionCase> cases;
  for (AttentionCase c : method_cases()) {
    if (c.layout.prefix.empty()) {
      c.layout.prefix = {11, 0, 4};
      c.layout.prefix_block_tokens = 8;
      c.label += "_with_prefix";
    } else {
      c.layout.prefix.clear();
      c.label += "_without_prefix";
    }
    cases.push_back(c);
  }
  return cases;
}

std::vector<AttentionCase> parity_cases(int ranks) {
  std::vector<AttentionCase> cases;
  const auto add_methods = [&](const MeshShape& mesh, const StrategySpec& strategy,
                               const Grid& grid) {
    for (AttentionCase c : method_cases()) {
      c.layout.grid = grid;
      c.mesh = mesh;
      c.strategy = strategy;
      cases.push_back(c);
      if (c.spec.method == MethodKind::kDense || c.spec.method == MethodKind::kSlidingTile) {
        continue;
      }
      c.layout.domains = mesh.outer == 1 ? 4 : 2 * mesh.outer;
      c.spec.budget.max_coverage = {Decimal::parse("0.3")};
      c.spec.budget.head_group = mesh.ulysses == 1 ? 0 : c.heads / mesh.ulysses;
      cases.push_back(c);
      if (!std::has_single_bit(static_cast<unsigned>(mesh.outer))) continue;
      c.spec.budget.form = kernels::BudgetForm::kTree;
      cases.push_back(c);
    }
  };
  const AttentionCase defaults;
  for (int ulysses : {1, 2, 3, 6}) {
    if (ranks % ulysses != 0) continue;
    for (auto outer :
         {OuterStrategyKind::kSelected, OuterStrategyKind::kRing, OuterStrategyKind::kAllGather}) {
      const MeshShape mesh{1, ranks / ulysses, ulysses};
      if (mesh.outer == 1 && outer != OuterStrategyKind::kSelected) continue;
      add_methods(mesh, {outer, true, 1}, defaults.layout.grid);
      if (outer == OuterStrategyKind::kRing || mesh.outer == 1) continue;
      add_methods(mesh, {outer, false, 1}, defaults.layout.grid);
    }
  }
  // Every method with a prefix and without.
  for (const int ulysses : {1, 2}) {
    if (ranks % ulysses != 0) continue;
    for (auto outer :
         {OuterStrategyKind::kSelected, OuterStrategyKind::kRing, OuterStrategyKind::kAllGather}) {
      for (AttentionCase c : other_prefix_cases()) {
        c.mesh = {1, ranks / ulysses, ulysses};
        c.strategy.outer = outer;
        cases.push_back(c);
      }
    }
  }
  // More ranks than cubes: some ranks hold nothing.
  for (auto outer :
       {OuterStrategyKind::kSelected, OuterStrategyKind::kRing, OuterStrategyKind::kAllGather}) {
    add_methods({1, ranks, 1}, {outer, true, 1}, {3, 5, 4});
  }
  return cases;
}

}  // namespace sprocket::parallel::testing
