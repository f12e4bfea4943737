#include "tests/models/cogvideox_case.h"

#include "models/token_share.h"
#include "parallel/tensor_buffer.h"
#include "tests/comm/thread_ranks.h"

namespace sprocket::models::testing {

CogVideoXCase small_cogvideox(CogVideoXPositions positions) {
  CogVideoXCase c;
  c.config.dim = 96;
  c.config.heads = 6;
  c.config.layers = 2;
  c.config.ffn_dim = 80;
  c.config.latent_channels = 3;
  c.config.text_dim = 20;
  c.config.text_tokens = 43;
  c.config.time_dim = 24;
  c.config.positions = positions;
  c.config.base_height = 4;
  c.config.base_width = 6;
  c.config.coarse_gate = true;
  c.layout.grid = {5, 3, 7};
  c.layout.cube = {2, 2, 4};
  c.layout.prefix = {c.config.text_tokens};
  c.layout.prefix_block_tokens = 8;
  c.compute.dtype = at::kDouble;
  return c;
}

CogVideoXInputs small_inputs(const CogVideoXCase& c) {
  const auto& grid = c.layout.grid;
  const auto& patch = c.config.patch;
  const std::vector<int64_t> latent{2, c.config.latent_channels, grid.t * patch.t, grid.h * patch.h,
                                    grid.w * patch.w};
  return {random_tensor(latent, 1101, at::kDouble),
          random_tensor({2}, 1102, at::kDouble).abs().mul(300),
          random_tensor({2, c.config.text_tokens, c.config.text_dim}, 1103, at::kDouble),
          random_tensor(latent, 1104, at::kDouble)};
}

CogVideoXResult run_cogvideox(const CogVideoXCase& c, const CogVideoXInputs& inputs,
                              ParameterStore& parameters, comm::Communicator& world) {
  return run_cogvideox(c, inputs, parameters, parameters, world);
}

CogVideoXResult run_cogvideox(const CogVideoXCase& c, const CogVideoXInputs& inputs,
                              const ModelWeights& weights, ParameterStore& trained,
                              comm::Communicator& world) {
  const parallel::Mesh mesh(world.split(0, world.rank(), "world"), c.mesh);
  parallel::SequenceAttention attention(mesh, parallel::make_token_layout(c.layout), c.strategy);
  const CogVideoXModel model(c.config, weights, mesh, c.compute);
  const TokenShare share =
      token_share(attention.layout(), attention.shards(), mesh.sequence().rank());
  const auto own = [&](const at::Tensor& latent) {
    return patchify_tokens(latent, attention.layout(), c.config.patch, share.first_video(),
                           share.video);
  };
  CogVideoXResult result;
  result.slots.resize(c.config.layers);
  const at::Tensor prediction = model.forward(own(inputs.latent_BCTHW), inputs.timestep_B,
                                              inputs.text_BSE, c.spec, attention, result.slots);
  prediction.backward(own(inputs.cotangent_BCTHW).to(prediction.scalar_type()));
  result.prediction_BLF = prediction.detach();
  result.gradients = trained.flat_gradients().clone();
  mesh.sequence()
      .all_reduce(parallel::buffer_of(result.gradients), comm::ReduceOp::kSum)
      .wait_host();
  return result;
}

CogVideoXResult run_cogvideox_alone(const CogVideoXCase& whole, const CogVideoXInputs& inputs,
                                    ParameterStore& parameters) {
  CogVideoXCase c = whole;
  c.mesh = {};
  CogVideoXResult result;
  comm::testing::run_ranks(
      1, [&](comm::Communicator& world) { result = run_cogvideox(c, inputs, parameters, world); });
  return result;
}

}  // namespace sprocket::models::testing
