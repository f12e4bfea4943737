#include "models/autograd/rotation.h"

#include <ATen/ops/complex.h>
#include <ATen/ops/conj.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/view_as_complex.h>
#include <ATen/ops/view_as_real.h>
#include <torch/csrc/autograd/custom_function.h>

#include "base/error.h"

namespace sprocket::models {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct RotationState {
  OpContext op;
  at::ScalarType type;
};

Work work_of(const at::Tensor& x, at::ScalarType from, at::ScalarType to) {
  const double bytes = static_cast<double>(c10::elementSize(from) + c10::elementSize(to));
  return {0, static_cast<double>(x.numel()) * bytes};
}

// x_BLHD contiguous, turns_L1P complex.
at::Tensor turned(const at::Tensor& x, const at::Tensor& turns) {
  const at::Tensor pairs = x.view({x.size(0), x.size(1), x.size(2), x.size(3) / 2, 2});
  return at::view_as_real(at::mul(at::view_as_complex(pairs), turns)).view(x.sizes());
}

class RotationFunction : public torch::autograd::Function<RotationFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& turns,
                            const RotationState& state) {
    ForwardScope scope(state.op, "rotation",
                       [&] { return work_of(x, x.scalar_type(), state.type); });
    ctx->save_for_backward({turns});
    keep_state(ctx, state);
    return turned(x.contiguous(), turns).to(state.type);
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const RotationState& state = state_of<RotationState>(ctx);
    const at::Tensor turns = ctx->get_saved_variables()[0];
    const at::ScalarType accumulator = c10::toRealValueType(turns.scalar_type());
    BackwardScope scope(state.op, "rotation",
                        [&] { return work_of(gradients[0], state.type, accumulator); });
    return {turned(gradients[0].to(accumulator).contiguous(), at::conj(turns)), {}, {}};
  }
};

}  // namespace

at::Tensor rotate_heads(const at::Tensor& x_BLHD, const RopeTables& rope, at::ScalarType type,
                        const OpContext& op) {
  SPROCKET_CHECK(rope.cos.size(0) == x_BLHD.size(1) && 2 * rope.cos.size(1) == x_BLHD.size(3),
                 "tables of {} x {} pairs for {} rows of {} channels", rope.cos.size(0),
                 rope.cos.size(1), x_BLHD.size(1), x_BLHD.size(3));
  return RotationFunction::apply(x_BLHD, at::complex(rope.cos, rope.sin).unsqueeze(1),
                                 RotationState{op, type});
}

}  // namespace sprocket::models
