#include "models/autograd/linear.h"

#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <torch/csrc/autograd/custom_function.h>

#include "base/error.h"
#include "kernels/gemm.h"
#include "models/autograd/row_ops.h"

namespace sprocket::models {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Sizes {
  int64_t rows, n, k;
};

Sizes sizes_of(const at::Tensor& x, const at::Tensor& weight) {
  SPROCKET_CHECK(x.size(-1) == weight.size(1), "expected {} features, found {}", weight.size(1),
                 x.size(-1));
  return {x.numel() / weight.size(1), weight.size(0), weight.size(1)};
}

// fp32 on the processor; everything else is LibTorch's: bf16 and fp64 there, and all on devices.
bool has_own_product(const at::Tensor& x) { return x.is_cpu() && x.scalar_type() == at::kFloat; }

at::Tensor rounded(const at::Tensor& parameter, const at::Tensor& copy, at::ScalarType type) {
  return copy.defined() && copy.scalar_type() == type ? copy : parameter.to(type);
}

// x_RK weight^T + bias, without a bias where that is undefined. x_RK contiguous.
at::Tensor product(const at::Tensor& x_RK, const at::Tensor& weight, const at::Tensor& weight_copy,
                   const at::Tensor& bias, const at::Tensor& bias_copy, const OpContext& op) {
  const Sizes s = sizes_of(x_RK, weight);
  if (!has_own_product(x_RK)) {
    const auto type = x_RK.scalar_type();
    const at::Tensor transposed = rounded(weight, weight_copy, type).t();
    return bias.defined() ? at::addmm(rounded(bias, bias_copy, type), x_RK, transposed)
                          : at::mm(x_RK, transposed);
  }
  at::Tensor y = at::empty({s.rows, s.n}, x_RK.options());
  kernels::linear_forward(x_RK.const_data_ptr<float>(), weight.const_data_ptr<float>(),
                          bias.defined() ? bias.const_data_ptr<float>() : nullptr,
                          y.data_ptr<float>(), s.rows, s.n, s.k, op.threads);
  return y;
}

at::Tensor input_gradient(const at::Tensor& dy_RN, const at::Tensor& weight,
                          const at::Tensor& weight_copy, const OpContext& op) {
  if (!has_own_product(dy_RN)) {
    return at::mm(dy_RN, rounded(weight, weight_copy, dy_RN.scalar_type()));
  }
  at::Tensor dx = at::empty({dy_RN.size(0), weight.size(1)}, dy_RN.options());
  kernels::linear_backward_input(dy_RN.const_data_ptr<float>(), weight.const_data_ptr<float>(),
                                 dx.data_ptr<float>(), dy_RN.size(0), weight.size(0),
                                 weight.size(1), op.threads);
  return dx;
}

struct WeightGradients {
  at::Tensor weight, bias;
};

WeightGradients weight_gradients(const at::Tensor& dy_RN, const at::Tensor& x_RK,
                                 const at::Tensor& weight, bool with_bias, const OpContext& op) {
  WeightGradients gradients;
  if (!has_own_product(dy_RN)) {
    gradients.weight = at::mm(dy_RN.t(), x_RK).to(weight.scalar_type());
    if (with_bias) gradients.bias = dy_RN.sum(0, false, weight.scalar_type());
    return gradients;
  }
  gradients.weight = at::empty(weight.sizes(), weight.options());
  if (with_bias) gradients.bias = at::empty({weight.size(0)}, weight.options());
  kernels::linear_backward_weight(dy_RN.const_data_ptr<float>(), x_RK.const_data_ptr<float>(),
                                  gradients.weight.data_ptr<float>(),
                                  with_bias ? gradients.bias.data_ptr<float>() : nullptr,
                                  dy_RN.size(0), weight.size(0), weight.size(1), false, op.threads);
  return gradients;
}

at::Tensor as_rows(const at::Tensor& x, int64_t features) {
  return x.contiguous().view({x.numel() / features, features});
}

std::vector<int64_t> with_last(at::IntArrayRef sizes, int64_t last) {
  std::vector<int64_t> result(sizes.begin(), sizes.end());
  result.back() = last;
  return result;
}

enum class Activation { kNone, kGelu };

struct LinearState {
  OpContext op;
  Activation activation;
  at::Tensor weight_copy, bias_copy, down_copy, up_copy;
  double factor;  // of the adapter
};

at::Tensor activate(const at::Tensor& x, const LinearState& state) {
  if (state.activation == Activation::kNone) return x;
  const at::Tensor y = at::empty_like(x);
  row_ops(x).gelu(x, y, state.op.threads);
  return y;
}

// dx, the gradient of activate(x), becomes that of x.
void deactivate(const at::Tensor& dx, const at::Tensor& x, const LinearState& state) {
  if (state.activation == Activation::kNone) return;
  row_ops(x).gelu_backward(dx, x, dx, state.op.threads);
}

// Products of [rows, n] and [n, k], whichever of the three is the result, and of an adapter; a pass
// over x and gelu(x) for each time that it is made.
Work work_of(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& down,
             Activation activation, int products, int adapter_products, int activations) {
  const Sizes s = sizes_of(x, weight);
  const auto rows = static_cast<double>(s.rows), n = static_cast<double>(s.n),
             k = static_cast<double>(s.k);
  const double r = down.defined() ? static_cast<double>(down.size(0)) : 0;
  const auto type = static_cast<double>(x.element_size()),
             wide = static_cast<double>(weight.element_size());
  const double gelu = activation == Activation::kNone ? 0 : 2 * rows * k * type;
  const double adapter_bytes =
      r > 0 ? (rows * (k + n) + 2 * rows * r) * type + r * (k + n) * wide : 0;
  return {products * 2 * rows * n * k + adapter_products * 2 * rows * r * (n + k),
          products * ((rows * k + rows * n) * type + n * k * wide) +
              adapter_products * adapter_bytes + activations * gelu};
}

// Inputs: x, weight, bias, and with an adapter down and up.
class LinearFunction : public torch::autograd::Function<LinearFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, at::TensorList inputs, const LinearState& state) {
    const at::Tensor &weight = inputs[1], &bias = inputs[2];
    const at::Tensor down = inputs.size() > 3 ? inputs[3] : at::Tensor();
    ForwardScope scope(state.op, name_of(state.activation),
                       [&] { return work_of(inputs[0], weight, down, state.activation, 1, 1, 1); });
    const at::Tensor x = inputs[0].contiguous();
    const at::Tensor x_RK = as_rows(activate(x, state), weight.size(1));
    const at::Tensor y = product(x_RK, weight, state.weight_copy, bias, state.bias_copy, state.op);
    variable_list saved = {x, weight};
    if (down.defined()) {
      const at::Tensor &up = inputs[4],
                       low_RQ = product(x_RK, down, state.down_copy, {}, {}, state.op);
      y.add_(product(low_RQ, up, state.up_copy, {}, {}, state.op), state.factor);
      saved.insert(saved.end(), {down, up, low_RQ});
    }
    ctx->save_for_backward(std::move(saved));
    keep_state(ctx, state);
    return y.view(with_last(x.sizes(), weight.size(0)));
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const LinearState& state = state_of<LinearState>(ctx);
    const variable_list saved = ctx->get_saved_variables();
    const bool adapted = saved.size() > 2;
    const at::Tensor &x = saved[0], &weight = saved[1];
    const at::Tensor down = adapted ? saved[2] : at::Tensor(),
                     up = adapted ? saved[3] : at::Tensor(),
                     low_RQ = adapted ? saved[4] : at::Tensor();
    const bool wants_x = ctx->needs_input_grad(0), wants_weight = ctx->needs_input_grad(1),
               wants_adapter = adapted && ctx->needs_input_grad(3);
    BackwardScope scope(state.op, name_of(state.activation), [&] {
      const int made = wants_x + wants_weight;
      return work_of(x, weight, down, state.activation, made, wants_x + wants_adapter, made);
    });
    const at::Tensor dy_RN = as_rows(gradients[0], weight.size(0));
    at::Tensor x_RK;
    if (wants_weight || wants_adapter) x_RK = as_rows(activate(x, state), weight.size(1));
    variable_list result(adapted ? 6 : 4);
    if (wants_weight) {
      const WeightGradients g =
          weight_gradients(dy_RN, x_RK, weight, ctx->needs_input_grad(2), state.op);
      result[1] = g.weight;
      result[2] = g.bias;
    }
    at::Tensor dlow_RQ;
    if (adapted && (wants_x || wants_adapter)) {
      dlow_RQ = input_gradient(dy_RN, up, state.up_copy, state.op).mul_(state.factor);
    }
    if (wants_adapter) {
      result[3] = weight_gradients(dlow_RQ, x_RK, down, false, state.op).weight;
      result[4] = weight_gradients(dy_RN, low_RQ, up, false, state.op).weight.mul_(state.factor);
    }
    if (wants_x) {
      const at::Tensor dx_RK = input_gradient(dy_RN, weight, state.weight_copy, state.op);
      if (adapted) dx_RK.add_(input_gradient(dlow_RQ, down, state.down_copy, state.op));
      result[0] = dx_RK.view(x.sizes());
      deactivate(result[0], x, state);
    }
    return result;
  }

 private:
  static const char* name_of(Activation activation) {
    return activation == Activation::kGelu ? "gelu_linear" : "linear";
  }
};

at::Tensor apply(const at::Tensor& x, const Affine& layer, Activation activation,
                 const OpContext& op) {
  const Adapter& adapter = layer.adapter;
  variable_list inputs = {x, layer.weight, layer.bias};
  if (adapter.down.defined()) inputs.insert(inputs.end(), {adapter.down, adapter.up});
  return LinearFunction::apply(at::TensorList(inputs),
                               LinearState{op, activation, layer.weight_copy, layer.bias_copy,
                                           adapter.down_copy, adapter.up_copy, adapter.factor});
}

}  // namespace

at::Tensor linear(const at::Tensor& x, const Affine& layer, const OpContext& op) {
  return apply(x, layer, Activation::kNone, op);
}

at::Tensor gelu_linear(const at::Tensor& x, const Affine& layer, const OpContext& op) {
  return apply(x, layer, Activation::kGelu, op);
}

}  // namespace sprocket::models
