#include "models/autograd/norms.h"

#include <ATen/ops/clone.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include "kernels/elementwise.h"
#include "parallel/tensor_buffer.h"

namespace sprocket::models {
namespace {

using parallel::dispatch_compute_type;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

template <class T>
const T* in(const at::Tensor& x) {
  return static_cast<const T*>(x.const_data_ptr());
}

template <class T>
T* out(const at::Tensor& x) {
  return static_cast<T*>(x.data_ptr());
}

struct NormState {
  OpContext op;
  double eps;
  at::ScalarType type;
  bool modulated;  // scale and shift per sample and 1 + scale; otherwise one weight and bias
};

template <class A>
kernels::RowAffine<A> row_affine(const at::Tensor& scale, const at::Tensor& shift,
                                 const NormState& state) {
  return {in<A>(scale), shift.defined() ? in<A>(shift) : nullptr,
          state.modulated ? scale.size(1) : 0, state.modulated ? 1.0 : 0.0};
}

class LayerNormFunction : public torch::autograd::Function<LayerNormFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& scale_view,
                            const at::Tensor& shift_view, const NormState& state) {
    ForwardScope scope(state.op, "norm");
    const at::Tensor scale = scale_view.contiguous(), shift = shift_view.contiguous();
    ctx->save_for_backward({x, scale});
    keep_state(ctx, state);
    const at::Tensor h = at::empty(x.sizes(), x.options().dtype(state.type));
    dispatch_compute_type(state.type, [&](auto zero) {
      using T = decltype(zero);
      using A = kernels::Accumulator<T>;
      kernels::layer_norm<T>(in<A>(x), row_affine<A>(scale, shift, state), x.size(0), x.size(1),
                             x.size(2), state.eps, out<T>(h), state.op.threads);
    });
    return h;
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const NormState& state = state_of<NormState>(ctx);
    BackwardScope scope(state.op, "norm");
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &scale = saved[1];
    const at::Tensor dh = gradients[0].contiguous();
    const at::Tensor dx = at::zeros_like(x);
    const at::Tensor dscale = at::empty_like(scale), dshift = at::empty_like(scale);
    dispatch_compute_type(state.type, [&](auto zero) {
      using T = decltype(zero);
      using A = kernels::Accumulator<T>;
      kernels::layer_norm_backward<T>(in<T>(dh), in<A>(x), row_affine<A>(scale, {}, state),
                                      x.size(0), x.size(1), x.size(2), state.eps, out<A>(dx),
                                      out<A>(dscale), out<A>(dshift), state.op.threads);
    });
    return {dx, dscale, dshift, {}};
  }
};

struct RmsState {
  OpContext op;
  RopeTables rope;  // undefined tensors: none
  double eps;
  int64_t head_dim;
};

template <class A>
kernels::Rotation<A> rotation_of(const RmsState& state) {
  if (!state.rope.cos.defined()) return {};
  return {in<A>(state.rope.cos), in<A>(state.rope.sin), state.head_dim};
}

class RmsNormFunction : public torch::autograd::Function<RmsNormFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& weight,
                            const RmsState& state) {
    ForwardScope scope(state.op, "qk_norm");
    ctx->save_for_backward({x, weight});
    keep_state(ctx, state);
    const at::Tensor y =
        at::empty({x.size(0), x.size(1), x.size(2) / state.head_dim, state.head_dim}, x.options());
    dispatch_compute_type(x.scalar_type(), [&](auto zero) {
      using T = decltype(zero);
      using A = kernels::Accumulator<T>;
      kernels::rms_norm_rotate<T>(in<T>(x), in<A>(weight), rotation_of<A>(state), x.size(0),
                                  x.size(1), x.size(2), state.eps, out<T>(y), state.op.threads);
    });
    return y;
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const RmsState& state = state_of<RmsState>(ctx);
    BackwardScope scope(state.op, "qk_norm");
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1];
    const at::Tensor dy = gradients[0].contiguous();
    const at::Tensor dx = at::empty_like(x), dweight = at::empty_like(weight);
    dispatch_compute_type(x.scalar_type(), [&](auto zero) {
      using T = decltype(zero);
      using A = kernels::Accumulator<T>;
      kernels::rms_norm_rotate_backward<T>(
          in<T>(dy), in<T>(x), in<A>(weight), rotation_of<A>(state), x.size(0), x.size(1),
          x.size(2), state.eps, out<T>(dx), out<A>(dweight), state.op.threads);
    });
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
    ForwardScope scope(op, "residual");
    const at::Tensor gate = gate_view ? gate_view->contiguous() : at::Tensor();
    if (gate.defined()) ctx->save_for_backward({y, gate});
    keep_state(ctx, ResidualState{op, y.scalar_type()});
    const at::Tensor sum = x.clone();
    dispatch_compute_type(y.scalar_type(), [&](auto zero) {
      using T = decltype(zero);
      using A = kernels::Accumulator<T>;
      kernels::add_gated<T>(in<T>(y), gate.defined() ? in<A>(gate) : nullptr, x.size(2), x.size(0),
                            x.size(1), x.size(2), out<A>(sum), op.threads);
    });
    return sum;
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const ResidualState& state = state_of<ResidualState>(ctx);
    BackwardScope scope(state.op, "residual");
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor& dsum = gradients[0];
    if (saved.empty()) return {dsum, dsum.to(state.type), {}, {}};
    const at::Tensor &y = saved[0], &gate = saved[1];
    const at::Tensor dsum_dense = dsum.contiguous();
    const at::Tensor dy = at::empty_like(y), dgate = at::empty_like(gate);
    dispatch_compute_type(state.type, [&](auto zero) {
      using T = decltype(zero);
      using A = kernels::Accumulator<T>;
      kernels::add_gated_backward<T>(in<A>(dsum_dense), in<T>(y), in<A>(gate), y.size(2), y.size(0),
                                     y.size(1), y.size(2), out<T>(dy), out<A>(dgate),
                                     state.op.threads);
    });
    return {dsum, dy, dgate, {}};
  }
};

}  // namespace

at::Tensor layer_norm_modulate(const at::Tensor& x_BLD, const at::Tensor& shift_BD,
                               const at::Tensor& scale_BD, double eps, at::ScalarType type,
                               const OpContext& op) {
  return LayerNormFunction::apply(x_BLD, scale_BD, shift_BD, NormState{op, eps, type, true});
}

at::Tensor layer_norm_affine(const at::Tensor& x_BLD, const at::Tensor& weight_D,
                             const at::Tensor& bias_D, double eps, at::ScalarType type,
                             const OpContext& op) {
  return LayerNormFunction::apply(x_BLD, weight_D, bias_D, NormState{op, eps, type, false});
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
