// ASA: the blocks that hold most of the sampled attention, and optionally global tokens.
#include <optional>

#include "kernels/mass_selection.h"
#include "parallel/attention/attention_method.h"
#include "parallel/attention/domain_imports.h"
#include "parallel/attention/global_branch.h"
#include "parallel/attention/sampled_blocks.h"
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
    Selection selection;
    dispatch_accumulator_type(sampled.q.scalar_type(), [&](auto zero) {
      using A = decltype(zero);
      const auto problem = sampled.problem<A>(context_, spec_.score);
      if (const auto budget = domain_budget(context_, budget_, problem.heads)) {
        selection = select_within(
            context_, *budget,
            *kernels::budgeted_selection<A>(problem, spec_.selection, *budget,
                                            held_domains(context_.layout, context_.blocks)));
        return;
      }
      selection.table = std::make_shared<kernels::SegmentTable>(
          kernels::select_by_mass<A>(problem, spec_.selection));
    });
    if (global_) {
      selection.global_table = std::make_shared<kernels::SegmentTable>(
          global_->table(*selection.table, spec_.exclude_selected));
    }
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
