#include "runtime/distill/network_denoiser.h"

#include <torch/csrc/autograd/custom_function.h>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>

#include "models/autograd/op_scope.h"
#include "parallel/tensor_buffer.h"
#include "runtime/plan/job_specs.h"

namespace sprocket::runtime {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct GatherState {
  Network* network;
  data::LatentShape shape;
};

// All ranks' tokens in block order, in host memory.
at::Tensor gather_tokens(const GatherState& state, const at::Tensor& own_BLF) {
  const parallel::ShardPlan& shards = state.network->shards(state.shape);
  comm::Communicator& group = state.network->mesh().sequence();
  const int64_t batch = own_BLF.size(0), features = own_BLF.size(2);
  std::vector<int64_t> counts;
  for (int rank = 0; rank < group.size(); ++rank) {
    counts.push_back(batch * shards.tokens_of(rank) * features);
  }
  const at::Tensor own = own_BLF.contiguous().cpu();
  const at::Tensor all =
      at::empty({batch * state.network->layout(state.shape).tokens() * features}, own.options());
  group.all_gather(parallel::buffer_of(own), parallel::buffer_of(all), counts).wait_host();
  std::vector<at::Tensor> parts;
  int64_t first = 0;
  for (const int64_t count : counts) {
    parts.push_back(all.narrow(0, first, count).view({batch, -1, features}));
    first += count;
  }
  return at::cat(parts, 1);
}

class GatherLatent : public torch::autograd::Function<GatherLatent> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& own_BLF,
                            const GatherState& state) {
    models::keep_state(ctx, state);
    const config::Extent& patch = state.network->job().model().patch();
    return models::unpatchify_tokens(gather_tokens(state, own_BLF),
                                     state.network->layout(state.shape),
                                     {patch.t(), patch.h(), patch.w()});
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const GatherState& state = models::state_of<GatherState>(ctx);
    return {
        state.network->own_patches(gradients[0], state.shape, models::FeatureOrder::kChannelLast),
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
  const at::Tensor own = network_.velocity(
      network_.own_patches(x, shape_, models::FeatureOrder::kChannelFirst),
      at::tensor(at::ArrayRef<double>(timesteps.data(), timesteps.size()), at::kDouble), text,
      shape_, attention_spec(network_.job().attention(), step_));
  return GatherLatent::apply(own, GatherState{&network_, shape_});
}

void NetworkDenoiser::end_backward() { network_.settle(shape_); }

}  // namespace sprocket::runtime
