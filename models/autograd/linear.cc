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

// x_RK contiguous.
at::Tensor product(const at::Tensor& x_RK, const Affine& layer, const OpContext& op) {
  const at::Tensor &weight = layer.weight, &bias = layer.bias;
  const Sizes s = sizes_of(x_RK, weight);
  if (!has_own_product(x_RK)) {
    const auto type = x_RK.scalar_type();
    return at::addmm(rounded(bias, layer.bias_copy, type), x_RK,
                     rounded(weight, layer.weight_copy, type).t());
  }
  at::Tensor y = at::empty({s.rows, s.n}, x_RK.options());
  kernels::linear_forward(x_RK.const_data_ptr<float>(), weight.const_data_ptr<float>(),
                          bias.const_data_ptr<float>(), y.data_ptr<float>(), s.rows, s.n, s.k,
                          op.threads);
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
                                 const at::Tensor& weight, const OpContext& op) {
  if (!has_own_product(dy_RN)) {
    return {at::mm(dy_RN.t(), x_RK).to(weight.scalar_type()),
            dy_RN.sum(0, false, weight.scalar_type())};
  }
  at::Tensor dw = at::empty(weight.sizes(), weight.options());
  at::Tensor db = at::empty({weight.size(0)}, weight.options());
  kernels::linear_backward_weight(dy_RN.const_data_ptr<float>(), x_RK.const_data_ptr<float>(),
                                  dw.data_ptr<float>(), db.data_ptr<float>(), dy_RN.size(0),
                                  weight.size(0), weight.size(1), false, op.threads);
  return {dw, db};
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
  at::Tensor weight_copy, bias_copy;
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

// Products of [rows, n] and [n, k], whichever of the three is the result; a pass over x and
// gelu(x) for each time that it is made.
Work work_of(const at::Tensor& x, const at::Tensor& weight, Activation activation, int products,
             int activations) {
  const Sizes s = sizes_of(x, weight);
  const auto rows = static_cast<double>(s.rows), n = static_cast<double>(s.n),
             k = static_cast<double>(s.k);
  const auto type = static_cast<double>(x.element_size());
  const double gelu = activation == Activation::kNone ? 0 : 2 * rows * k * type;
  return {products * 2 * rows * n * k,
          products * ((rows * k + rows * n) * type +
                      n * k * static_cast<double>(weight.element_size())) +
              activations * gelu};
}

class LinearFunction : public torch::autograd::Function<LinearFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x_view,
                            const at::Tensor& weight, const at::Tensor& bias,
                            const LinearState& state) {
    ForwardScope scope(state.op, name_of(state.activation),
                       [&] { return work_of(x_view, weight, state.activation, 1, 1); });
    const at::Tensor x = x_view.contiguous();
    ctx->save_for_backward({x, weight});
    keep_state(ctx, state);
    const at::Tensor x_RK = as_rows(activate(x, state), weight.size(1));
    return product(x_RK, {weight, bias, state.weight_copy, state.bias_copy}, state.op)
        .view(with_last(x.sizes(), weight.size(0)));
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const LinearState& state = state_of<LinearState>(ctx);
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1];
    BackwardScope scope(state.op, name_of(state.activation), [&] {
      const int gradients = ctx->needs_input_grad(0) + ctx->needs_input_grad(1);
      return work_of(x, weight, state.activation, gradients, gradients);
    });
    const at::Tensor dy_RN = as_rows(gradients[0], weight.size(0));
    variable_list result(4);
    if (ctx->needs_input_grad(1)) {
      const at::Tensor x_RK = as_rows(activate(x, state), weight.size(1));
      const WeightGradients g = weight_gradients(dy_RN, x_RK, weight, state.op);
      result[1] = g.weight;
      result[2] = g.bias;
    }
    if (ctx->needs_input_grad(0)) {
      result[0] = input_gradient(dy_RN, weight, state.weight_copy, state.op).view(x.sizes());
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
  return LinearFunction::apply(x, layer.weight, layer.bias,
                               LinearState{op, activation, layer.weight_copy, layer.bias_copy});
}

}  // namespace

at::Tensor linear(const at::Tensor& x, const Affine& layer, const OpContext& op) {
  return apply(x, layer, Activation::kNone, op);
}

at::Tensor gelu_linear(const at::Tensor& x, const Affine& layer, const OpContext& op) {
  return apply(x, layer, Activation::kGelu, op);
}

}  // namespace sprocket::models
