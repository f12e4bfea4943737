// PSA: every block at one of several resolutions, or not at all, by sampled attention.
#include <ATen/ops/empty.h>

#include "kernels/level_selection.h"
#include "parallel/attention/attention_method.h"
#include "parallel/attention/block_summaries.h"
#include "parallel/attention/sampled_blocks.h"
#include "parallel/tensor_buffer.h"

namespace sprocket::parallel {
namespace {

class PsaMethod : public FineStageMethod {
 public:
  PsaMethod(const MethodContext& context, const PsaSpec& spec)
      : context_(context),
        spec_(spec),
        pyramid_(kernels::make_pyramid_layout(context.layout.block_offsets, kPsaWidths)) {}

  Selection prepare(const ShardTensors& tensors, const Selection& saved) override {
    dtype_ = tensors.q.scalar_type();
    if (saved.table) return saved;
    const SampledBlocks sampled = sample_and_gather(context_, tensors, spec_.sampling);
    const at::Tensor caps = spec_.similarity.empty() ? at::Tensor() : gather_caps(tensors.k);
    Timeline::Scope scope(context_.timeline(), Activity::kCompute, "attention.select");
    Selection selection;
    dispatch_accumulator_type(sampled.q.scalar_type(), [&](auto zero) {
      using A = decltype(zero);
      selection.table = std::make_shared<kernels::SegmentTable>(kernels::select_levels<A>(
          sampled.problem<A>(context_, spec_.score), spec_.levels, pyramid_,
          caps.defined() ? caps.data_ptr<uint8_t>() : nullptr, nullptr));
    });
    return selection;
  }

  double density(const Selection& selection) const override {
    return kernels::pyramid_density(*selection.table, pyramid_);
  }

 private:
  // [B, H, blocks] of the whole sequence.
  at::Tensor gather_caps(const at::Tensor& k_BLHD) const {
    at::Tensor own = at::empty({k_BLHD.size(0), k_BLHD.size(2), context_.own_blocks()},
                               k_BLHD.options().dtype(at::kByte));
    {
      Timeline::Scope scope(context_.timeline(), Activity::kCompute, "attention.select");
      dispatch_compute_type(k_BLHD.scalar_type(), [&](auto zero) {
        using T = decltype(zero);
        kernels::similarity_caps<T>(const_head_view<T>(k_BLHD), context_.blocks.own_offsets(),
                                    static_cast<int>(k_BLHD.size(0)),
                                    static_cast<int>(k_BLHD.size(2)),
                                    static_cast<int>(k_BLHD.size(3)), kPsaWidths, spec_.similarity,
                                    own.data_ptr<uint8_t>(), context_.threads);
      });
    }
    return gather_blocks(context_.blocks, context_.group, {own})[0];
  }

  MethodContext context_;
  PsaSpec spec_;
  kernels::PyramidLayout pyramid_;
};

}  // namespace

std::unique_ptr<AttentionMethod> make_psa_method(const MethodContext& context,
                                                 const PsaSpec& spec) {
  return std::make_unique<PsaMethod>(context, spec);
}

}  // namespace sprocket::parallel
