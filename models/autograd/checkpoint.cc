#include "models/autograd/checkpoint.h"

#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

namespace sprocket::models {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct CheckpointState {
  TensorFunction body;
  OpContext op;
};

class CheckpointFunction : public torch::autograd::Function<CheckpointFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, at::TensorList inputs,
                            const CheckpointState& state) {
    ctx->save_for_backward(inputs.vec());
    keep_state(ctx, state);
    return state.body(inputs.vec());
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const CheckpointState& state = state_of<CheckpointState>(ctx);
    LayerScope layer(state.op.timeline, state.op.layer);
    std::vector<at::Tensor> inputs;
    for (const auto& saved : ctx->get_saved_variables()) {
      inputs.push_back(saved.detach().requires_grad_(saved.requires_grad()));
    }
    at::Tensor output;
    {
      PhaseScope phase(state.op.timeline, Phase::kRecompute);
      const at::AutoGradMode with_graph(true);
      output = state.body(inputs);
    }
    {
      PhaseScope phase(state.op.timeline, Phase::kBackward);
      torch::autograd::backward({output}, {gradients[0]});
    }
    variable_list result;
    for (const auto& input : inputs) result.push_back(input.grad());
    result.emplace_back();  // of the state
    return result;
  }
};

}  // namespace

at::Tensor checkpoint(const TensorFunction& body, const std::vector<at::Tensor>& inputs,
                      const OpContext& op) {
  return CheckpointFunction::apply(at::TensorList(inputs), CheckpointState{body, op});
}

}  // namespace sprocket::models
