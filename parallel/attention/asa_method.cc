// ASA: the blocks that hold most of the sampled attention, and optionally global tokens.
#include <optional>

#include "kernels/mass_selection.h"
#include "parallel/attention/attention_method.h"
#include "parallel/attention/domain_imports.h"
#include "parallel/attention/global_branch.h"
#include "parallel/attention/sampled_blocks.h"
#include "parallel/attention/selection_device.h"
#include "parallel/tensor_buffer.h"

namespace sprocket::parallel {
namespace {

class AsaMethod : public FineStageMethod {
 public:
  AsaMethod(const MethodContext& context, const AsaSpec& spec, const BudgetSpec& budget)
      : context_(context), spec_(spec), budget_(budget) {
    if (spec.global_width > 0) global_.emplace(context, spec.global_width, spec.exclude_selected);
  }

  Selection prepare(const ShardTensors& tensors, const Selection& saved) override {
    dtype_ = tensors.q.scalar_type();
    selection_ = saved.table ? saved : select(tensors);
    if (global_) global_->gather(tensors.k, tensors.v);
    return selection_;
  }

  void attend_first(const QuerySide& query, PassOutput& output) override {
    if (global_) global_->attend(query, selection_.global_table, output);
  }

  void add_gradients(const QuerySide& query, const OutputSide& output,
                     ShardGradients& gradients) override {
    if (global_) global_->add_gradients(query, selection_.global_table, output, gradients);
  }

  // A global token counts as one token.
  std::vector<kernels::Share> head_density(const Selection& selection) const override {
    std::vector<kernels::Share> shares = FineStageMethod::head_density(selection);
    if (!global_) return shares;
    const kernels::SegmentTable& table = *selection.global_table;
    const double blocks_of_token = static_cast<double>(context_.layout.blocks()) /
                                   static_cast<double>(context_.layout.tokens());
    for (int64_t row = 0; row < table.rows(); ++row) {
      int64_t tokens = 0;
      for (int64_t i = table.row_offsets[row]; i < table.row_offsets[row + 1]; ++i) {
        tokens += global_->tokens().segments[table.kv_block[i]].groups;
      }
      shares[row / table.query_blocks % table.heads].part +=
          static_cast<double>(tokens) * blocks_of_token;
    }
    return shares;
  }

 private:
  Selection select(const ShardTensors& tensors) const {
    const SampledBlocks sampled = sample_and_gather(context_, tensors, spec_.sampling);
    Timeline::Scope scope(context_.timeline(), Activity::kCompute, "attention.select");
    const auto budget = domain_budget(context_, budget_, static_cast<int>(sampled.q.size(1)));
    Selection selection =
        sampled.q.is_cpu() ? select_on_host(sampled, budget) : select_on_device(sampled, budget);
    if (global_) {
      selection.global_table = std::make_shared<kernels::SegmentTable>(
          global_->table(*selection.table, spec_.exclude_selected));
    }
    return selection;
  }

  // Scores: a SampledScoreProblem or GivenScores.
  template <class A, class Scores>
  Selection select_by_budget(const Scores& scores, const kernels::DomainBudget& budget) const {
    return select_within(
        context_, budget,
        *kernels::budgeted_selection<A>(scores, spec_.selection, budget,
                                        held_domains(context_.layout, context_.blocks)));
  }

  Selection select_on_host(const SampledBlocks& sampled,
                           const std::optional<kernels::DomainBudget>& budget) const {
    Selection selection;
    dispatch_accumulator_type(sampled.q.scalar_type(), [&](auto zero) {
      using A = decltype(zero);
      const auto problem = sampled.problem<A>(context_, spec_.score);
      if (budget) {
        selection = select_by_budget<A>(problem, *budget);
        return;
      }
      selection.table = std::make_shared<kernels::SegmentTable>(
          kernels::select_by_mass<A>(problem, spec_.selection));
    });
    return selection;
  }

  Selection select_on_device(const SampledBlocks& sampled,
                             const std::optional<kernels::DomainBudget>& budget) const {
    const device::ScoreTensors tensors = device::sampled_scores(context_, sampled, spec_.score);
    if (budget) {
      const at::Tensor scores = tensors.scores.cpu();
      return select_by_budget<float>(given_scores(context_, scores), *budget);
    }
    const kernels::MassBounds bounds =
        kernels::mass_bounds(spec_.selection, static_cast<int>(tensors.scores.size(3)));
    Selection selection;
    selection.table =
        std::make_shared<kernels::SegmentTable>(device::select_by_mass(tensors, bounds));
    return selection;
  }

  MethodContext context_;
  AsaSpec spec_;
  BudgetSpec budget_;
  std::optional<GlobalBranch> global_;
  Selection selection_;
};

}  // namespace

std::unique_ptr<AttentionMethod> make_asa_method(const MethodContext& context, const AsaSpec& spec,
                                                 const BudgetSpec& budget) {
  return std::make_unique<AsaMethod>(context, spec, budget);
}

}  // namespace sprocket::parallel
