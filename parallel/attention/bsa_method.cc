// BSA: the queries that differ most from their block's centre, over blocks chosen by the means of
// these queries and of all keys.
#include <algorithm>

#include <ATen/ops/empty.h>

#include "kernels/threshold_selection.h"
#include "parallel/attention/attention_method.h"
#include "parallel/attention/block_summaries.h"
#include "parallel/attention/domain_imports.h"
#include "parallel/attention/pruned_queries.h"
#include "parallel/attention/selection_device.h"
#include "parallel/tensor_buffer.h"

namespace sprocket::parallel {
namespace {

class BsaMethod : public FineStageMethod {
 public:
  BsaMethod(const MethodContext& context, const BsaSpec& spec, const BudgetSpec& budget)
      : context_(context), spec_(spec), budget_(budget) {
    spec_.threshold.first_query_block = context.first_block();
    spec_.threshold.prefix_blocks = context.layout.prefix_blocks();
  }

  Selection prepare(const ShardTensors& tensors, const Selection& saved) override {
    dtype_ = tensors.q.scalar_type();
    if (saved.table) return saved;
    Selection selection;
    at::Tensor q_means, k_means;
    {
      Timeline::Scope scope(context_.timeline(), Activity::kCompute, "attention.prune");
      selection.pruning = std::make_shared<kernels::QueryPruning>(pruning_of(tensors.q));
    }
    {
      Timeline::Scope scope(context_.timeline(), Activity::kCompute, "attention.pool",
                            [&] { return moving(tensors.k); });
      const PrunedQueries pruned(selection.pruning, tensors.q.device(), context_.threads);
      q_means = pruned.means(pruned.gather(tensors.q));
      k_means = block_means(tensors.k, context_.blocks.own_offsets(), context_.threads);
    }
    k_means = gather_blocks(context_.blocks, context_.group.tensors, {k_means})[0];
    Timeline::Scope scope(context_.timeline(), Activity::kCompute, "attention.select");
    const auto budget = domain_budget(context_, budget_, static_cast<int>(k_means.size(1)));
    if (!k_means.is_cpu() && !budget) {
      selection.table = std::make_shared<kernels::SegmentTable>(select_on_device(q_means, k_means));
      return selection;
    }
    // Budgets have no kernels on a device.
    Selection selected = select(q_means.cpu(), k_means.cpu(), budget);
    selected.pruning = selection.pruning;
    return selected;
  }

  // With the share of its queries that a head keeps.
  std::vector<kernels::Share> head_density(const Selection& selection) const override {
    const kernels::QueryPruning& pruning = *selection.pruning;
    std::vector<double> kept(pruning.heads);
    for (size_t i = 0; i < pruning.rows.size(); ++i) {
      kept[i / pruning.query_blocks() % pruning.heads] += pruning.rows[i];
    }
    const double all = static_cast<double>(pruning.tokens()) * pruning.batch;
    std::vector<kernels::Share> shares = FineStageMethod::head_density(selection);
    for (size_t h = 0; h < shares.size(); ++h) shares[h].part *= all == 0 ? 0 : kept[h] / all;
    return shares;
  }

 private:
  kernels::QueryPruning pruning_of(const at::Tensor& q_BLHD) const {
    const TokenLayout& layout = context_.layout;
    const int64_t first = context_.blocks.first_token(context_.blocks.self);
    std::vector<kernels::TokenPosition> positions(q_BLHD.size(1));
    for (int64_t i = 0; i < q_BLHD.size(1); ++i) {
      if (!layout.is_prefix(first + i)) positions[i] = layout.position(first + i);
    }
    const int exempt =
        std::clamp(layout.prefix_blocks() - context_.first_block(), 0, context_.own_blocks());
    return prune_queries(q_BLHD, context_.blocks.own_offsets(), positions, spec_.pruning, exempt,
                         context_.threads);
  }

  kernels::SegmentTable select_on_device(const at::Tensor& q_means,
                                         const at::Tensor& k_means) const {
    const int prefix = context_.layout.prefix_blocks(), video = context_.layout.blocks() - prefix;
    return device::select_by_threshold(
        {q_means, k_means, {}, context_.scale, context_.first_block(), prefix},
        kernels::threshold_bounds(spec_.threshold, video, video));
  }

  // On the processor.
  Selection select(const at::Tensor& q_means, const at::Tensor& k_means,
                   const std::optional<kernels::DomainBudget>& budget) const {
    const int batch = static_cast<int>(k_means.size(0)), heads = static_cast<int>(k_means.size(1)),
              head_dim = static_cast<int>(k_means.size(3));
    Selection selection;
    dispatch_accumulator_type(k_means.scalar_type(), [&](auto zero) {
      using A = decltype(zero);
      const auto* const qc = static_cast<const A*>(q_means.data_ptr());
      const auto* const kc = static_cast<const A*>(k_means.data_ptr());
      if (!budget) {
        selection.table = std::make_shared<kernels::SegmentTable>(kernels::select_by_threshold<A>(
            qc, kc, batch, heads, context_.own_blocks(), context_.layout.blocks(), head_dim,
            context_.scale, spec_.threshold, context_.threads));
        return;
      }
      selection =
          select_within(context_, *budget,
                        *kernels::budgeted_selection<A>(
                            qc, kc, batch, heads, context_.own_blocks(), context_.layout.blocks(),
                            head_dim, context_.scale, spec_.threshold, *budget,
                            held_domains(context_.layout, context_.blocks), context_.threads));
    });
    return selection;
  }

  MethodContext context_;
  BsaSpec spec_;
  BudgetSpec budget_;
};

}  // namespace

std::unique_ptr<AttentionMethod> make_bsa_method(const MethodContext& context, const BsaSpec& spec,
                                                 const BudgetSpec& budget) {
  return std::make_unique<BsaMethod>(context, spec, budget);
}

}  // namespace sprocket::parallel
