// PSA: every block at one of several resolutions, or not at all, by sampled attention.
#include <ATen/ops/empty.h>

#include "kernels/level_selection.h"
#include "parallel/attention/attention_method.h"
#include "parallel/attention/block_summaries.h"
#include "parallel/attention/block_summaries_device.h"
#include "parallel/attention/domain_imports.h"
#include "parallel/attention/sampled_blocks.h"
#include "parallel/attention/selection_device.h"
#include "parallel/tensor_buffer.h"

namespace sprocket::parallel {
namespace {

class PsaMethod : public FineStageMethod {
 public:
  PsaMethod(const MethodContext& context, const PsaSpec& spec, const BudgetSpec& budget)
      : context_(context),
        spec_(spec),
        budget_(budget),
        pyramid_(kernels::make_pyramid_layout(context.layout.block_offsets, kPsaWidths)) {}

  Selection prepare(const ShardTensors& tensors, const Selection& saved) override {
    dtype_ = tensors.q.scalar_type();
    if (saved.table) return saved;
    const SampledBlocks sampled = sample_and_gather(context_, tensors, spec_.sampling);
    const at::Tensor caps = spec_.similarity.empty() ? at::Tensor() : gather_caps(tensors.k);
    Timeline::Scope scope(context_.timeline(), Activity::kCompute, "attention.select");
    const auto budget = domain_budget(context_, budget_, static_cast<int>(sampled.q.size(1)));
    if (!sampled.q.is_cpu()) return select_on_device(sampled, caps, budget);
    Selection selection;
    dispatch_accumulator_type(sampled.q.scalar_type(), [&](auto zero) {
      using A = decltype(zero);
      const auto problem = sampled.problem<A>(context_, spec_.score);
      if (budget) {
        selection = select_by_budget<A>(problem, caps, *budget);
        return;
      }
      const uint8_t* const most = caps.defined() ? caps.data_ptr<uint8_t>() : nullptr;
      selection.table = std::make_shared<kernels::SegmentTable>(
          kernels::select_levels<A>(problem, spec_.levels, pyramid_, most, nullptr));
    });
    return selection;
  }

  // A block at the level of width w counts as 1 / w of it.
  std::vector<kernels::Share> head_density(const Selection& selection) const override {
    const kernels::SegmentTable& table = *selection.table;
    const double all = static_cast<double>(table.batch) * table.query_blocks * pyramid_.blocks();
    std::vector<kernels::Share> shares;
    for (const double pairs : kernels::pyramid_pairs(table, pyramid_)) {
      shares.push_back({pairs, all});
    }
    return shares;
  }

 private:
  // Scores: a SampledScoreProblem or GivenScores. caps: on the processor.
  template <class A, class Scores>
  Selection select_by_budget(const Scores& scores, const at::Tensor& caps,
                             const kernels::DomainBudget& budget) const {
    const uint8_t* const most = caps.defined() ? caps.data_ptr<uint8_t>() : nullptr;
    return select_within(
        context_, budget,
        *kernels::budgeted_selection<A>(scores, spec_.levels, pyramid_, most, budget,
                                        held_domains(context_.layout, context_.blocks)));
  }

  Selection select_on_device(const SampledBlocks& sampled, const at::Tensor& caps,
                             const std::optional<kernels::DomainBudget>& budget) const {
    const device::ScoreTensors tensors = device::sampled_scores(context_, sampled, spec_.score);
    if (budget) {
      const at::Tensor scores = tensors.scores.cpu();
      return select_by_budget<float>(given_scores(context_, scores),
                                     caps.defined() ? caps.cpu() : caps, *budget);
    }
    const kernels::LevelBounds bounds =
        kernels::level_bounds(spec_.levels, static_cast<int>(tensors.scores.size(3)));
    Selection selection;
    selection.table = std::make_shared<kernels::SegmentTable>(
        device::select_levels(tensors, bounds, pyramid_, caps));
    return selection;
  }

  // [B, H, blocks] of the whole sequence.
  at::Tensor gather_caps(const at::Tensor& k_BLHD) const {
    at::Tensor own;
    {
      Timeline::Scope scope(context_.timeline(), Activity::kCompute, "attention.select");
      own = own_caps(k_BLHD);
    }
    return gather_blocks(context_.blocks, context_.group.tensors, {own})[0];
  }

  at::Tensor own_caps(const at::Tensor& k_BLHD) const {
    const std::vector<int64_t> offsets = context_.blocks.own_offsets();
    if (!k_BLHD.is_cpu()) {
      return device::similarity_caps(k_BLHD, offsets, kPsaWidths, spec_.similarity);
    }
    at::Tensor caps = at::empty({k_BLHD.size(0), k_BLHD.size(2), context_.own_blocks()},
                                k_BLHD.options().dtype(at::kByte));
    dispatch_compute_type(k_BLHD.scalar_type(), [&](auto zero) {
      using T = decltype(zero);
      kernels::similarity_caps<T>(
          const_head_view<T>(k_BLHD), offsets, static_cast<int>(k_BLHD.size(0)),
          static_cast<int>(k_BLHD.size(2)), static_cast<int>(k_BLHD.size(3)), kPsaWidths,
          spec_.similarity, caps.data_ptr<uint8_t>(), context_.threads);
    });
    return caps;
  }

  MethodContext context_;
  PsaSpec spec_;
  BudgetSpec budget_;
  kernels::PyramidLayout pyramid_;
};

}  // namespace

std::unique_ptr<AttentionMethod> make_psa_method(const MethodContext& context, const PsaSpec& spec,
                                                 const BudgetSpec& budget) {
  return std::make_unique<PsaMethod>(context, spec, budget);
}

}  // namespace sprocket::parallel
