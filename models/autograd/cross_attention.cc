#include "models/autograd/cross_attention.h"

#include <cmath>

#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include "parallel/attention/pass_work.h"
#include "parallel/tensor_buffer.h"

namespace sprocket::models {
namespace {

using parallel::KvTensors;
using parallel::QuerySide;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Rows per block on both sides; any size gives the same function, 64 is the kernel's tuned one.
constexpr int64_t kBlock = 64;

struct CrossState {
  OpContext op;
  std::vector<int64_t> query_offsets;
  std::shared_ptr<const kernels::SegmentTable> table;
  kernels::KvBlockMap map;
  double scale;
};

CrossState plan(const at::Tensor& q, const at::Tensor& k, const OpContext& op) {
  CrossState state{op, {0}, nullptr, {}, 1.0 / std::sqrt(static_cast<double>(q.size(3)))};
  for (int64_t row = 0; row < q.size(1); row += kBlock) {
    state.query_offsets.push_back(std::min(row + kBlock, q.size(1)));
  }
  for (int64_t row = 0; row < k.size(1); row += kBlock) {
    const int64_t rows = std::min(kBlock, k.size(1) - row);
    state.map.blocks.push_back({0, static_cast<int32_t>(rows), row, 0});
  }
  state.map.kv_blocks = static_cast<int>(state.map.blocks.size());
  state.table = std::make_shared<kernels::SegmentTable>(kernels::make_dense_table(
      static_cast<int>(q.size(0)), static_cast<int>(q.size(2)),
      static_cast<int>(state.query_offsets.size()) - 1, state.map.kv_blocks));
  return state;
}

QuerySide query_side(const CrossState& state, const at::Tensor& q) {
  QuerySide query{q, state.query_offsets, state.table, {}, state.scale, state.op.threads};
  parallel::attach_device_form(query);
  return query;
}

class CrossAttentionFunction : public torch::autograd::Function<CrossAttentionFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& q, const at::Tensor& k,
                            const at::Tensor& v, const OpContext& op) {
    const CrossState state = plan(q, k, op);
    const QuerySide query = query_side(state, q);
    ForwardScope scope(op, "cross_attention",
                       [&] { return parallel::forward_pass_work(query, state.map); });
    parallel::PassOutput output = parallel::empty_output(q);
    parallel::forward_pass(query, {{k, v}}, state.map, output);
    const at::Tensor result = output.out_BLHD.to(q.scalar_type());
    ctx->save_for_backward({q, k, v, result, output.lse_BHL});
    keep_state(ctx, state);
    return result;
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const CrossState& state = state_of<CrossState>(ctx);
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &q = saved[0], &k = saved[1], &v = saved[2], &out = saved[3], &lse = saved[4];
    const QuerySide query = query_side(state, q);
    BackwardScope scope(state.op, "cross_attention",
                        [&] { return parallel::backward_pass_work(query, state.map); });
    const parallel::OutputSide output = parallel::output_side(
        out.to(lse.scalar_type()), lse, gradients[0].contiguous(), state.op.threads);
    const at::Tensor dq = at::zeros(q.sizes(), lse.options());
    const at::Tensor dk = at::zeros(k.sizes(), lse.options());
    const at::Tensor dv = at::zeros(v.sizes(), lse.options());
    parallel::backward_pass(query, {{k, v}}, state.map, output, dq, {{dk, dv}});
    return {dq.to(q.scalar_type()), dk.to(k.scalar_type()), dv.to(v.scalar_type()), {}};
  }
};

}  // namespace

at::Tensor cross_attention(const at::Tensor& q_BLHD, const at::Tensor& k_BSHD,
                           const at::Tensor& v_BSHD, const OpContext& op) {
  return CrossAttentionFunction::apply(q_BLHD.contiguous(), k_BSHD.contiguous(),
                                       v_BSHD.contiguous(), op);
}

}  // namespace sprocket::models
