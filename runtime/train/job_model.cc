#include "runtime/train/job_model.h"

#include "base/error.h"
#include "configs/attention_rules.h"
#include "models/cogvideox/cogvideox_model.h"
#include "models/cogvideox/cogvideox_weights.h"
#include "models/wan/wan_model.h"
#include "models/wan/wan_weights.h"
#include "parallel/tensor_buffer.h"

namespace sprocket::runtime {
namespace {

[[noreturn]] void no_counterpart() { throw InternalError("model.family has no counterpart"); }

models::Patch patch_of(const config::Model& model) {
  return {model.patch().t(), model.patch().h(), model.patch().w()};
}

models::CogVideoXPositions positions_of(config::CogVideoX::Positions positions) {
  switch (positions) {
    case config::CogVideoX::SINUSOIDS:
      return models::CogVideoXPositions::kSinusoids;
    case config::CogVideoX::SCALED_ROPE:
      return models::CogVideoXPositions::kScaledRope;
    case config::CogVideoX::ROPE:
      return models::CogVideoXPositions::kRope;
  }
  throw InternalError("model.cogvideox.positions has no counterpart");
}

// On the processor a product rounds for itself.
models::ParameterStore::Copies copies_of(const config::Job& job, const at::Device& device) {
  using Copies = models::ParameterStore::Copies;
  return device.is_cuda() && compute_type(job) == at::kBFloat16 ? Copies::kBFloat16 : Copies::kNone;
}

}  // namespace

models::WanConfig wan_config(const config::Job& job) {
  const config::Model& model = job.model();
  SPROCKET_CHECK(model.family() == config::Model::WAN, "found {}",
                 config::Model::Family_Name(model.family()));
  models::WanConfig c;
  c.dim = model.dim();
  c.heads = model.heads();
  c.layers = model.layers();
  c.ffn_dim = model.ffn_dim();
  c.latent_channels = model.latent_channels();
  c.patch = patch_of(model);
  c.text_dim = model.text_dim();
  c.text_tokens = model.text_tokens();
  c.frequency_dim = model.frequency_dim();
  c.eps = model.epsilon();
  c.coarse_gate = config::has_coarse_gate(job.attention());
  c.fine_gate = config::has_fine_gate(job.attention());
  return c;
}

models::CogVideoXConfig cogvideox_config(const config::Job& job) {
  const config::Model& model = job.model();
  SPROCKET_CHECK(model.family() == config::Model::COGVIDEOX, "found {}",
                 config::Model::Family_Name(model.family()));
  const config::CogVideoX& own = model.cogvideox();
  models::CogVideoXConfig c;
  c.dim = model.dim();
  c.heads = model.heads();
  c.layers = model.layers();
  c.ffn_dim = model.ffn_dim();
  c.latent_channels = model.latent_channels();
  c.patch = patch_of(model);
  c.text_dim = model.text_dim();
  c.text_tokens = model.text_tokens();
  c.time_dim = own.time_dim();
  c.positions = positions_of(own.positions());
  c.spatial_scale = own.spatial_scale();
  c.temporal_scale = own.temporal_scale();
  c.base_height = own.base_height();
  c.base_width = own.base_width();
  c.eps = model.epsilon();
  c.qk_eps = own.qk_epsilon();
  c.coarse_gate = config::has_coarse_gate(job.attention());
  c.fine_gate = config::has_fine_gate(job.attention());
  return c;
}

std::vector<models::ParameterSpec> model_parameters(const config::Job& job) {
  switch (job.model().family()) {
    case config::Model::WAN:
      return models::wan_parameters(wan_config(job));
    case config::Model::COGVIDEOX:
      return models::cogvideox_parameters(cogvideox_config(job));
  }
  no_counterpart();
}

at::ScalarType compute_type(const config::Job& job) {
  switch (job.compute().precision()) {
    case config::Compute::FP32:
      return at::kFloat;
    case config::Compute::BF16:
      return at::kBFloat16;
    case config::Compute::FP64:
      return at::kDouble;
  }
  throw InternalError("compute.precision has no counterpart");
}

std::unique_ptr<models::ParameterStore> make_parameters(const config::Job& job,
                                                        std::vector<models::ParameterSpec> specs,
                                                        const at::Device& device,
                                                        models::ParameterStore::Use use) {
  return std::make_unique<models::ParameterStore>(std::move(specs),
                                                  parallel::accumulator_type(compute_type(job)),
                                                  device, copies_of(job, device), use);
}

std::unique_ptr<models::ParameterStore> make_parameters(const config::Job& job,
                                                        const at::Device& device,
                                                        models::ParameterStore::Use use) {
  return make_parameters(job, model_parameters(job), device, use);
}

std::unique_ptr<models::VideoTransformer> make_model(const config::Job& job,
                                                     const models::ModelWeights& weights,
                                                     const parallel::Mesh& mesh,
                                                     const models::ModelCompute& compute) {
  switch (job.model().family()) {
    case config::Model::WAN:
      return std::make_unique<models::WanModel>(wan_config(job), weights, mesh, compute);
    case config::Model::COGVIDEOX:
      return std::make_unique<models::CogVideoXModel>(cogvideox_config(job), weights, mesh,
                                                      compute);
  }
  no_counterpart();
}

void start_parameters(const config::Job& job, models::ParameterStore& parameters) {
  const std::string& weights = job.model().weights();
  if (weights.empty()) return parameters.initialise(job.training().seed());
  switch (job.model().family()) {
    case config::Model::WAN:
      models::load_wan_weights(weights, parameters);
      return;
    case config::Model::COGVIDEOX:
      models::load_cogvideox_weights(weights, parameters);
      return;
  }
  no_counterpart();
}

}  // namespace sprocket::runtime
