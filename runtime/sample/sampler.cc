#include "runtime/sample/sampler.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/full.h>

#include "base/philox.h"
#include "runtime/plan/job_specs.h"
#include "runtime/sample/integrator.h"
#include "runtime/train/gather_latent.h"
#include "runtime/train/text_input.h"

namespace sprocket::runtime {
namespace {

// The order of the model's input, in which x is kept.
at::Tensor channel_first(const at::Tensor& tokens_BLF, models::FeatureOrder order,
                         int64_t channels) {
  if (order == models::FeatureOrder::kChannelFirst) return tokens_BLF;
  const int64_t batch = tokens_BLF.size(0), rows = tokens_BLF.size(1), f = tokens_BLF.size(2);
  return tokens_BLF.view({batch, rows, f / channels, channels})
      .transpose(2, 3)
      .reshape({batch, rows, f});
}

}  // namespace

std::vector<float> sample_latent(Network& network, const config::Sampling& sampling,
                                 const SampleRequest& request, const EvaluationHooks& hooks) {
  const at::NoGradGuard no_gradients;
  Timeline* const timeline = network.mesh().timeline();
  const PhaseScope phase(timeline, Phase::kSample);
  const data::LatentShape& shape = request.shape;
  const config::Model& model = network.job().model();
  Integrator integrator(plan_sampler(sampling, network.job()));
  const int steps = static_cast<int>(integrator.plan().size());
  const bool guided = sampling.guidance() != 1;
  const int64_t batch = guided ? 2 : 1;

  const auto own_noise = [&](uint64_t step, RandomPurpose purpose) {
    std::vector<float> noise(shape.elements());
    RandomStream(request.seed, step, request.number, purpose).normal(noise);
    return network.own_patches(
        at::from_blob(noise.data(), {1, shape.c, shape.t, shape.h, shape.w}, at::kFloat), shape,
        models::FeatureOrder::kChannelFirst);
  };
  at::Tensor x = own_noise(0, RandomPurpose::kSampling);
  at::Tensor text = text_tensor(model, request.text);
  if (guided) text = at::cat({text, text_tensor(model, request.negative)});

  for (int i = 0; i < steps; ++i) {
    if (hooks.before) hooks.before();
    const at::Tensor timestep = at::full({batch}, integrator.plan()[i].timestep, at::kFloat);
    at::Tensor v = network.velocity(
        x.expand({batch, -1, -1}), timestep, text, shape,
        sampling_attention_spec(network.job().attention(), request.step, i, steps));
    if (guided) {
      const at::Tensor with_text = v.narrow(0, 0, 1), without = v.narrow(0, 1, 1);
      v = without + (with_text - without) * sampling.guidance();
    }
    x = integrator.step(x, channel_first(v, network.output_order(), shape.c),
                        [&] { return own_noise(i, RandomPurpose::kSamplingStep); });
    if (hooks.after) hooks.after(i + 1);
    if (hooks.stop && hooks.stop()) break;
  }
  const at::Tensor latent = gather_latent(network, x, shape, models::FeatureOrder::kChannelFirst);
  const auto* values = latent.data_ptr<float>();
  return {values, values + latent.numel()};
}

}  // namespace sprocket::runtime
