// VSA: a coarse branch over block means, which also selects the blocks of the fine branch.
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include "base/error.h"
#include "kernels/block_pooling.h"
#include "kernels/block_selection.h"
#include "kernels/branch_combine.h"
#include "kernels/coarse_attention.h"
#include "parallel/attention/attention_method.h"
#include "parallel/attention/block_summaries.h"
#include "parallel/attention/block_summaries_device.h"
#include "parallel/attention/domain_imports.h"
#include "parallel/attention/gated_branches_device.h"
#include "parallel/attention/selection_device.h"
#include "parallel/tensor_buffer.h"

namespace sprocket::parallel {
namespace {

// Pieces of each block, and how many are not empty.
struct Pieces {
  int parts = 1;
  at::Tensor means;  // [B, H, blocks, parts * D]
  std::vector<int32_t> counts;
};

class VsaMethod : public AttentionMethod {
 public:
  VsaMethod(const MethodContext& context, const VsaSpec& spec, const BudgetSpec& budget)
      : context_(context), spec_(spec), budget_(budget), offsets_(context.blocks.own_offsets()) {}

  Selection prepare(const ShardTensors& tensors, const Selection& saved) override {
    tensors_ = tensors;
    Pieces q_pieces, k_pieces;
    {
      Timeline::Scope scope(context_.timeline(), Activity::kCompute, "attention.pool",
                            [&] { return moving(tensors.q, tensors.k, tensors.v); });
      q_own_ = block_means(tensors.q, offsets_, context_.threads);
      k_all_ = block_means(tensors.k, offsets_, context_.threads);
      v_all_ = block_means(tensors.v, offsets_, context_.threads);
      if (!saved.table) {
        q_pieces = pieces_of(tensors.q, spec_.query_parts);
        k_pieces = pieces_of(tensors.k, spec_.key_parts);
      }
    }
    std::vector<at::Tensor> summaries{k_all_, v_all_};
    if (k_pieces.means.defined()) summaries.push_back(k_pieces.means);
    summaries = gather_blocks(context_.blocks, context_.group.tensors, summaries);
    k_all_ = summaries[0];
    v_all_ = summaries[1];
    if (k_pieces.means.defined()) {
      k_pieces.means = summaries[2];
      k_pieces.counts =
          kernels::sub_block_counts(context_.layout.block_offsets, k_pieces.parts, capacity());
    }

    Timeline::Scope scope(context_.timeline(), Activity::kCompute, "attention.select");
    if (has_coarse()) coarse_ = at::empty_like(q_own_);
    if (saved.table) {
      attend_to_means();
      return saved;
    }
    const TokenLayout& layout = context_.layout;
    const int k = kernels::selected_count(spec_.sparsity, layout.blocks() - layout.prefix_blocks());
    const auto budget = domain_budget(context_, budget_, heads());
    if (q_own_.is_cpu()) return select(q_pieces, k_pieces, k, budget, coarse_);
    if (!budget && !q_pieces.means.defined() && !k_pieces.means.defined()) {
      Selection selection;
      selection.table = std::make_shared<kernels::SegmentTable>(
          device::select_and_attend(coarse_tensors(), k, coarse_));
      return selection;
    }
    attend_to_means();
    return select(q_pieces, k_pieces, k, budget, {});
  }

  at::Tensor finish(const at::Tensor& fine) override {
    if (!has_coarse() && !spec_.fine_gate) return fine.to(tensors_.q.scalar_type());
    Timeline::Scope scope(context_.timeline(), Activity::kCompute, "attention.combine", [&] {
      return moving(fine, tensors_.coarse_gate, tensors_.fine_gate, tensors_.q);
    });
    at::Tensor out = at::empty_like(tensors_.q);
    fine_ = fine;
    if (!out.is_cpu()) {
      device::combine_branches(branch_tensors(), offsets_, out);
      if (!spec_.fine_gate) fine_.reset();
      return out;
    }
    dispatch_compute_type(tensors_.q.scalar_type(), [&](auto zero) {
      using T = decltype(zero);
      kernels::combine_branches<T>(branches<T>(), head_view<T>(out));
    });
    if (!spec_.fine_gate) fine_.reset();
    return out;
  }

  at::Tensor finish_backward(const at::Tensor& dout, ShardGradients& gradients) override {
    if (!has_coarse() && !spec_.fine_gate) return dout;
    Timeline::Scope scope(context_.timeline(), Activity::kCompute, "attention.combine", [&] {
      const at::Tensor &coarse = tensors_.coarse_gate, &fine = tensors_.fine_gate;
      return moving(dout, coarse, coarse, fine, fine, fine_);
    });
    const auto like_gate = [](const at::Tensor& gate) {
      return gate.defined() ? at::empty_like(gate) : at::Tensor();
    };
    gradients.dcoarse_gate = like_gate(tensors_.coarse_gate);
    gradients.dfine_gate = like_gate(tensors_.fine_gate);
    at::Tensor dfine = spec_.fine_gate ? at::empty_like(dout) : dout;
    if (has_coarse()) dcoarse_ = at::empty_like(coarse_);
    if (!dout.is_cpu()) {
      device::combine_branches_backward(branch_tensors(), offsets_, dout,
                                        {dcoarse_, gradients.dcoarse_gate, gradients.dfine_gate,
                                         spec_.fine_gate ? dfine : at::Tensor()});
      return dfine;
    }
    dispatch_compute_type(dout.scalar_type(), [&](auto zero) {
      using T = decltype(zero);
      kernels::BranchGradients<T> to;
      if (has_coarse()) to.dcoarse = static_cast<kernels::Accumulator<T>*>(dcoarse_.data_ptr());
      to.dcoarse_gate = gradient_view<T>(gradients.dcoarse_gate);
      to.dfine_gate = gradient_view<T>(gradients.dfine_gate);
      if (spec_.fine_gate) to.dfine = head_view<T>(dfine);
      kernels::combine_branches_backward<T>(branches<T>(), const_head_view<T>(dout), to);
    });
    return dfine;
  }

  void add_gradients(const QuerySide&, const OutputSide&, ShardGradients& gradients) override {
    if (!has_coarse()) return;
    at::Tensor dq_own = at::empty_like(q_own_), dk_all = at::empty_like(k_all_),
               dv_all = at::empty_like(v_all_);
    {
      Timeline::Scope scope(context_.timeline(), Activity::kCompute, "attention.coarse");
      coarse_backward(dq_own, dk_all, dv_all);
    }
    const auto own =
        reduce_scatter_blocks(context_.blocks, context_.group.tensors, {dk_all, dv_all});
    Timeline::Scope scope(context_.timeline(), Activity::kCompute, "attention.pool", [&] {
      const at::Tensor &dq = gradients.dq, &dk = gradients.dk, &dv = gradients.dv;
      return moving(dq, dq, dk, dk, dv, dv);
    });
    add_block_mean_gradients(dq_own, offsets_, gradients.dq, context_.threads);
    add_block_mean_gradients(own[0], offsets_, gradients.dk, context_.threads);
    add_block_mean_gradients(own[1], offsets_, gradients.dv, context_.threads);
  }

 private:
  // On the processor, wherever the tensors live: budgets and the sub-block score have no kernels on
  // a device, and means are small. The coarse output goes to `out` unless that is undefined.
  Selection select(const Pieces& q_pieces, const Pieces& k_pieces, int k,
                   const std::optional<kernels::DomainBudget>& budget,
                   const at::Tensor& out) const {
    const at::Tensor q = q_own_.cpu(), keys = k_all_.cpu();
    const Pieces q_host = on_host(q_pieces), k_host = on_host(k_pieces);
    Selection selection;
    dispatch_accumulator_type(q.scalar_type(), [&](auto zero) {
      using A = decltype(zero);
      A* const to = out.defined() ? static_cast<A*>(out.data_ptr()) : nullptr;
      kernels::CoarseProblem<A> problem = this->problem<A>();
      problem.qc = static_cast<const A*>(q.data_ptr());
      problem.kc = static_cast<const A*>(keys.data_ptr());
      problem.q_sub = sub_blocks<A>(q_host);
      problem.k_sub = sub_blocks<A>(k_host);
      if (!budget) {
        selection.table =
            std::make_shared<kernels::SegmentTable>(kernels::select_and_attend<A>(problem, k, to));
        return;
      }
      selection = select_within(
          context_, *budget,
          *kernels::budgeted_selection<A>(problem, k, *budget,
                                          held_domains(context_.layout, context_.blocks), to));
    });
    return selection;
  }

  // The coarse output alone.
  void attend_to_means() const {
    if (!has_coarse()) return;
    if (!coarse_.is_cpu()) return device::coarse_attend(coarse_tensors(), coarse_);
    dispatch_accumulator_type(coarse_.scalar_type(), [&](auto zero) {
      using A = decltype(zero);
      kernels::coarse_attend<A>(problem<A>(), static_cast<A*>(coarse_.data_ptr()));
    });
  }

  void coarse_backward(const at::Tensor& dq_own, const at::Tensor& dk_all,
                       const at::Tensor& dv_all) const {
    if (!dq_own.is_cpu()) {
      return device::coarse_attend_backward(coarse_tensors(), dcoarse_, dq_own, dk_all, dv_all);
    }
    dispatch_accumulator_type(q_own_.scalar_type(), [&](auto zero) {
      using A = decltype(zero);
      kernels::coarse_attend_backward<A>(problem<A>(), static_cast<const A*>(dcoarse_.data_ptr()),
                                         static_cast<A*>(dq_own.data_ptr()),
                                         static_cast<A*>(dk_all.data_ptr()),
                                         static_cast<A*>(dv_all.data_ptr()));
    });
  }

  device::CoarseTensors coarse_tensors() const {
    return {q_own_,
            k_all_,
            v_all_,
            context_.scale,
            context_.first_block(),
            context_.layout.prefix_blocks(),
            spec_.prefix};
  }
  device::BranchTensors branch_tensors() const {
    return {fine_, tensors_.fine_gate, has_coarse() ? coarse_ : at::Tensor(), tensors_.coarse_gate};
  }

  bool has_coarse() const { return spec_.coarse != CoarseBranch::kNone; }
  int batch() const { return static_cast<int>(tensors_.q.size(0)); }
  int heads() const { return static_cast<int>(tensors_.q.size(2)); }
  int head_dim() const { return static_cast<int>(tensors_.q.size(3)); }
  int capacity() const { return context_.layout.block_capacity(); }

  template <class T>
  static kernels::HeadView<const T> gate_view(const at::Tensor& gate) {
    return gate.defined() ? const_head_view<T>(gate) : kernels::HeadView<const T>{};
  }
  template <class T>
  static kernels::HeadView<T> gradient_view(const at::Tensor& dgate) {
    return dgate.defined() ? head_view<T>(dgate) : kernels::HeadView<T>{};
  }
  // Without `fine_` where only its gate's gradient would read it.
  template <class T>
  kernels::Branches<T> branches() const {
    using A = kernels::Accumulator<T>;
    return {fine_.defined() ? const_head_view<A>(fine_) : kernels::HeadView<const A>{},
            gate_view<T>(tensors_.fine_gate),
            has_coarse() ? static_cast<const A*>(coarse_.data_ptr()) : nullptr,
            gate_view<T>(tensors_.coarse_gate),
            offsets_,
            batch(),
            heads(),
            head_dim(),
            context_.threads};
  }

  // Nothing for a side whose score is that of the block means.
  Pieces pieces_of(const at::Tensor& x, int parts) const {
    if (parts == 1) return {};
    Pieces pieces{parts, {}, kernels::sub_block_counts(offsets_, parts, capacity())};
    if (!x.is_cpu()) {
      pieces.means = device::sub_block_means(x, offsets_, parts, capacity());
      return pieces;
    }
    pieces.means = at::empty(
        {x.size(0), x.size(2), static_cast<int64_t>(offsets_.size()) - 1, parts * x.size(3)},
        q_own_.options());
    dispatch_compute_type(x.scalar_type(), [&](auto zero) {
      using T = decltype(zero);
      kernels::pool_sub_blocks<T>(
          const_head_view<T>(x), offsets_, parts, capacity(), static_cast<int>(x.size(0)),
          static_cast<int>(x.size(2)), static_cast<int>(x.size(3)),
          static_cast<kernels::Accumulator<T>*>(pieces.means.data_ptr()), context_.threads);
    });
    return pieces;
  }

  static Pieces on_host(Pieces pieces) {
    if (pieces.means.defined()) pieces.means = pieces.means.cpu();
    return pieces;
  }

  template <class A>
  static kernels::SubBlocks<A> sub_blocks(const Pieces& pieces) {
    if (!pieces.means.defined()) return {};
    return {pieces.parts, static_cast<const A*>(pieces.means.data_ptr()), pieces.counts};
  }

  template <class A>
  kernels::CoarseProblem<A> problem() const {
    kernels::CoarseProblem<A> problem;
    problem.batch = batch();
    problem.heads = heads();
    problem.query_blocks = context_.own_blocks();
    problem.kv_blocks = context_.layout.blocks();
    problem.head_dim = head_dim();
    problem.scale = context_.scale;
    problem.qc = static_cast<const A*>(q_own_.data_ptr());
    problem.kc = static_cast<const A*>(k_all_.data_ptr());
    problem.vc = static_cast<const A*>(v_all_.data_ptr());
    problem.first_query_block = context_.first_block();
    problem.prefix_blocks = context_.layout.prefix_blocks();
    problem.prefix_rule = spec_.prefix;
    problem.threads = context_.threads;
    return problem;
  }

  MethodContext context_;
  VsaSpec spec_;
  BudgetSpec budget_;
  std::vector<int64_t> offsets_;
  ShardTensors tensors_;
  at::Tensor q_own_, k_all_, v_all_;  // block means
  at::Tensor coarse_, dcoarse_;       // [B, H, own blocks, D]
  at::Tensor fine_;                   // kept for the fine gate's gradient
};

}  // namespace

std::unique_ptr<AttentionMethod> make_vsa_method(const MethodContext& context, const VsaSpec& spec,
                                                 const BudgetSpec& budget) {
  return std::make_unique<VsaMethod>(context, spec, budget);
}

}  // namespace sprocket::parallel
