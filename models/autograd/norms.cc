#include "models/autograd/norms.h"

#include <ATen/ops/clone.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include "models/autograd/row_ops.h"
#include "parallel/tensor_buffer.h"

namespace sprocket::models {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct NormState {
  OpContext op;
  double eps;
  at::ScalarType type;
  bool per_sample;  // scale and shift; otherwise one weight and bias
  double base;      // added to the scale
};

RowOps::Affine affine_of(const at::Tensor& scale, const at::Tensor& shift, const NormState& state) {
  return {scale, shift, state.per_sample, state.base};
}

// Of reading or writing as many elements as x has, of so many bytes each.
Work moving_rows(const at::Tensor& x, size_t bytes) {
  return {0, static_cast<double>(x.numel()) * static_cast<double>(bytes)};
}

class LayerNormFunction : public torch::autograd::Function<LayerNormFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& scale_view,
                            const at::Tensor& shift_view, const NormState& state) {
    ForwardScope scope(state.op, "norm", [&] {
      return moving_rows(x, x.element_size() + c10::elementSize(state.type));
    });
    const at::Tensor scale = scale_view.contiguous(), shift = shift_view.contiguous();
    ctx->save_for_backward({x, scale});
    keep_state(ctx, state);
    const at::Tensor h = at::empty(x.sizes(), x.options().dtype(state.type));
    row_ops(x).layer_norm(x, affine_of(scale, shift, state), state.eps, h, state.op.threads);
    return h;
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const NormState& state = state_of<NormState>(ctx);
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &scale = saved[1];
    BackwardScope scope(state.op, "norm", [&] {
      return moving_rows(x, 2 * x.element_size() + c10::elementSize(state.type));
    });
    const at::Tensor dh = gradients[0].contiguous();
    const at::Tensor dx = at::zeros_like(x);
    const at::Tensor dscale = at::empty_like(scale), dshift = at::empty_like(scale);
    row_ops(x).layer_norm_backward(dh, x, affine_of(scale, {}, state), state.eps, dx, dscale,
                                   dshift, state.op.threads);
    return {dx, dscale, dshift, {}};
  }
};

struct RmsState {
  OpContext op;
  RopeTables rope;  // undefined tensors: none
  double eps;
  int64_t head_dim;
};

class RmsNormFunction : public torch::autograd::Function<RmsNormFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& weight,
                            const RmsState& state) {
    ForwardScope scope(state.op, "qk_norm", [&] { return moving_rows(x, 2 * x.element_size()); });
    ctx->save_for_backward({x, weight});
    keep_state(ctx, state);
    const at::Tensor y =
        at::empty({x.size(0), x.size(1), x.size(2) / state.head_dim, state.head_dim}, x.options());
    row_ops(x).rms_norm_rotate(x, weight, state.rope, state.head_dim, state.eps, y,
                               state.op.threads);
    return y;
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const RmsState& state = state_of<RmsState>(ctx);
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1];
    BackwardScope scope(state.op, "qk_norm", [&] { return moving_rows(x, 3 * x.element_size()); });
    const at::Tensor dy = gradients[0].contiguous();
    const at::Tensor dx = at::empty_like(x), dweight = at::empty_like(weight);
    row_ops(x).rms_norm_rotate_backward(dy, x, weight, state.rope, state.head_dim, state.eps, dx,
                                        dweight, state.op.threads);
    return {dx, dweight, {}};
  }
};

struct ResidualState {
  OpContext op;
  at::ScalarType type;
};

// Without a gate tensor the gate is 1 and nothing is saved.
class ResidualFunction : public torch::autograd::Function<ResidualFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& y,
                            const std::optional<at::Tensor>& gate_view, const OpContext& op) {
    ForwardScope scope(op, "residual", [&] { return parallel::moving(x, x, y); });
    const at::Tensor gate = gate_view ? gate_view->contiguous() : at::Tensor();
    if (gate.defined()) ctx->save_for_backward({y, gate});
    keep_state(ctx, ResidualState{op, y.scalar_type()});
    const at::Tensor sum = x.clone();
    row_ops(x).add_gated(y, gate, sum, op.threads);
    return sum;
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const ResidualState& state = state_of<ResidualState>(ctx);
    BackwardScope scope(state.op, "residual", [&] {
      const size_t type = c10::elementSize(state.type);
      return moving_rows(gradients[0], gradients[0].element_size() + 2 * type);
    });
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor& dsum = gradients[0];
    if (saved.empty()) return {dsum, dsum.to(state.type), {}, {}};
    const at::Tensor &y = saved[0], &gate = saved[1];
    const at::Tensor dsum_dense = dsum.contiguous();
    const at::Tensor dy = at::empty_like(y), dgate = at::empty_like(gate);
    row_ops(y).add_gated_backward(dsum_dense, y, gate, dy, dgate, state.op.threads);
    return {dsum, dy, dgate, {}};
  }
};

}  // namespace

at::Tensor layer_norm_modulate(const at::Tensor& x_BLD, const at::Tensor& shift_BD,
                               const at::Tensor& scale_BD, double eps, at::ScalarType type,
                               const OpContext& op) {
  return LayerNormFunction::apply(x_BLD, scale_BD, shift_BD, NormState{op, eps, type, true, 1});
}

at::Tensor layer_norm_scaled(const at::Tensor& x_BLD, const at::Tensor& shift_BD,
                             const at::Tensor& scale_BD, double eps, at::ScalarType type,
                             const OpContext& op) {
  return LayerNormFunction::apply(x_BLD, scale_BD, shift_BD, NormState{op, eps, type, true, 0});
}

at::Tensor layer_norm_affine(const at::Tensor& x_BLD, const at::Tensor& weight_D,
                             const at::Tensor& bias_D, double eps, at::ScalarType type,
                             const OpContext& op) {
  return LayerNormFunction::apply(x_BLD, weight_D, bias_D, NormState{op, eps, type, false, 0});
}

at::Tensor rms_norm_heads(const at::Tensor& x_BLD, const at::Tensor& weight_D,
                          const RopeTables* rope, int heads, double eps, const OpContext& op) {
  return RmsNormFunction::apply(
      x_BLD, weight_D, RmsState{op, rope ? *rope : RopeTables{}, eps, x_BLD.size(2) / heads});
}

at::Tensor gated_residual(const at::Tensor& x_BLD, const at::Tensor& y_BLD,
                          const at::Tensor& gate_BD, const OpContext& op) {
  return ResidualFunction::apply(x_BLD, y_BLD, std::optional<at::Tensor>(gate_BD), op);
}

at::Tensor residual(const at::Tensor& x_BLD, const at::Tensor& y_BLD, const OpContext& op) {
  return ResidualFunction::apply(x_BLD, y_BLD, std::optional<at::Tensor>(), op);
}

}  // namespace sprocket::models
