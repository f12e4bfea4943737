#include "tests/models/wan_case.h"

#include <cmath>

#include <ATen/ops/empty.h>

#include "base/philox.h"
#include "parallel/tensor_buffer.h"

namespace sprocket::models::testing {

at::Tensor random_tensor(at::IntArrayRef shape, uint64_t stream, at::ScalarType dtype) {
  at::Tensor x = at::empty(shape, at::kFloat);
  RandomStream(11, 0, stream, RandomPurpose::kTest)
      .normal({x.data_ptr<float>(), static_cast<size_t>(x.numel())});
  return x.to(dtype);
}

WanCase small_case() {
  WanCase c;
  c.config.dim = 72;
  c.config.heads = 6;
  c.config.layers = 2;
  c.config.ffn_dim = 80;
  c.config.latent_channels = 3;
  c.config.text_dim = 20;
  c.config.text_tokens = 9;
  c.config.frequency_dim = 16;
  c.config.coarse_gate = true;
  c.layout.grid = {5, 3, 7};
  c.layout.cube = {2, 2, 4};
  c.compute.dtype = at::kDouble;
  return c;
}

WanInputs small_inputs(const WanCase& c) {
  const auto& grid = c.layout.grid;
  const auto& patch = c.config.patch;
  const std::vector<int64_t> latent{2, c.config.latent_channels, grid.t * patch.t, grid.h * patch.h,
                                    grid.w * patch.w};
  WanInputs inputs{random_tensor(latent, 1001, at::kDouble),
                   random_tensor({2}, 1002, at::kDouble).abs().mul(300),
                   random_tensor({2, c.config.text_tokens, c.config.text_dim}, 1003, at::kDouble),
                   random_tensor(latent, 1004, at::kDouble)};
  return inputs;
}

void randomise(ParameterStore& parameters) {
  for (int i = 0; i < parameters.size(); ++i) {
    const ParameterSpec& spec = parameters.spec(i);
    const at::Tensor tensor = parameters.tensor(i).detach();
    const bool norm = spec.name.find("norm") != std::string::npos && spec.shape.size() == 1;
    const bool matrix = spec.shape.size() > 1 && spec.name.find("modulation") == std::string::npos;
    const double fan_in = static_cast<double>(spec.elements()) / static_cast<double>(spec.shape[0]);
    tensor.copy_(random_tensor(spec.shape, static_cast<uint64_t>(i), tensor.scalar_type()))
        .mul_(matrix ? 1 / std::sqrt(fan_in) : 0.2);
    if (norm && spec.name.ends_with("weight")) tensor.add_(1);
  }
}

WanResult run_wan(const WanCase& c, const WanInputs& inputs, ParameterStore& parameters,
                  comm::Communicator& world) {
  return run_wan(c, inputs, parameters, parameters, world);
}

WanResult run_wan(const WanCase& c, const WanInputs& inputs, const ModelWeights& weights,
                  ParameterStore& trained, comm::Communicator& world) {
  const parallel::Mesh mesh(world.split(0, world.rank(), "world"), c.mesh);
  parallel::SequenceAttention attention(mesh, parallel::make_token_layout(c.layout), c.strategy);
  const WanModel model(c.config, weights, mesh, c.compute);
  const int rank = mesh.sequence().rank();
  const int64_t first = attention.shards().rank_tokens[rank],
                count = attention.shards().tokens_of(rank);
  const auto own = [&](const at::Tensor& latent, FeatureOrder order) {
    return patchify_tokens(latent, attention.layout(), c.config.patch, first, count, order);
  };
  WanResult result;
  result.slots.resize(c.config.layers);
  const at::Tensor velocity =
      model.forward(own(inputs.latent_BCTHW, FeatureOrder::kChannelFirst), inputs.timestep_B,
                    inputs.text_BSE, c.spec, attention, result.slots);
  velocity.backward(
      own(inputs.cotangent_BCTHW, FeatureOrder::kChannelLast).to(velocity.scalar_type()));
  result.velocity_BLF = velocity.detach();
  result.gradients = trained.flat_gradients().clone();
  mesh.sequence()
      .all_reduce(parallel::buffer_of(result.gradients), comm::ReduceOp::kSum)
      .wait_host();
  return result;
}

}  // namespace sprocket::models::testing
