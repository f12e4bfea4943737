#include "runtime/distill/network_denoiser.h"

#include <torch/csrc/autograd/custom_function.h>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/tensor.h>

#include "base/error.h"
#include "models/autograd/op_scope.h"
#include "runtime/plan/job_specs.h"
#include "runtime/train/gather_latent.h"

namespace sprocket::runtime {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct GatherState {
  Network* network;
  data::LatentShape shape;
};

class GatherLatent : public torch::autograd::Function<GatherLatent> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& own_BLF,
                            const GatherState& state) {
    models::keep_state(ctx, state);
    return gather_latent(*state.network, own_BLF, state.shape, state.network->output_order());
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const GatherState& state = models::state_of<GatherState>(ctx);
    return {state.network->own_patches(gradients[0], state.shape, state.network->output_order()),
            at::Tensor()};
  }
};

}  // namespace

at::Tensor NetworkDenoiser::predict(const at::Tensor& x, std::span<const double> timesteps,
                                    const at::Tensor& text) {
  Timeline* const timeline = network_.mesh().timeline();
  const bool plain = !at::GradMode::is_enabled();
  const PhaseScope phase(timeline, plain ? plain_ : Phase::kForward);
  (plain ? evaluations_.plain : evaluations_.with_graph) += x.size(0);
  shape_ = {x.size(1), x.size(2), x.size(3), x.size(4)};
  SPROCKET_CHECK(plain || offloaded_ == nullptr, "a backward needs the weights once more");
  const OffloadedWeights::Visit visit(offloaded_);
  const at::Tensor own = network_.velocity(
      network_.own_patches(x, shape_, models::FeatureOrder::kChannelFirst),
      at::tensor(at::ArrayRef<double>(timesteps.data(), timesteps.size()), at::kDouble), text,
      shape_, attention_spec(network_.job().attention(), step_));
  return GatherLatent::apply(own, GatherState{&network_, shape_});
}

void NetworkDenoiser::end_backward() { network_.settle(shape_); }

}  // namespace sprocket::runtime
