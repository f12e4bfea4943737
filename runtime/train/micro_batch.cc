#include "runtime/train/micro_batch.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/tensor.h>

#include "base/error.h"
#include "runtime/plan/job_specs.h"
#include "runtime/train/job_diffusion.h"
#include "runtime/train/noisy_latent.h"
#include "runtime/train/text_input.h"

namespace sprocket::runtime {

MicroBatch make_micro_batch(const config::Job& job, const data::LatentShape& shape,
                            std::span<const data::Sample> samples,
                            std::span<const SampleKey> keys) {
  SPROCKET_CHECK_EQ(samples.size(), keys.size());
  const Diffusion diffusion = job_diffusion(job);
  MicroBatch batch;
  batch.shape = shape;
  std::vector<at::Tensor> noisy, target, text;
  std::vector<float> timesteps;
  for (size_t lane = 0; lane < samples.size(); ++lane) {
    const data::Sample& sample = samples[lane];
    SPROCKET_CHECK_EQ(std::ssize(sample.latent), shape.elements());
    const std::vector<float> noise = draw_noise(shape.elements(), keys[lane]);
    const NoisyLatent input =
        add_noise(diffusion, sample.latent, noise, draw_timestep(job, keys[lane]), shape);
    noisy.push_back(input.noisy);
    target.push_back(input.target);
    timesteps.push_back(input.timestep);
    const bool dropped = drops_text(job.training().text_dropout(), keys[lane]);
    text.push_back(text_tensor(job.model(), dropped ? std::span<const float>() : sample.text));
  }
  batch.noisy_BCTHW = at::cat(noisy);
  batch.target_BCTHW = at::cat(target);
  batch.timestep_B = at::tensor(timesteps);
  batch.text_BND = at::cat(text);
  return batch;
}

PassOutcome forward_backward(Network& network, const MicroBatch& batch, int64_t step,
                             int64_t samples, std::span<const parallel::Selection> selections) {
  Timeline* const timeline = network.mesh().timeline();
  const at::Tensor patches =
      network.own_patches(batch.noisy_BCTHW, batch.shape, models::FeatureOrder::kChannelFirst);
  const at::Tensor velocity =
      network.velocity(patches, batch.timestep_B, batch.text_BND, batch.shape,
                       attention_spec(network.job().attention(), step), selections);
  PassOutcome outcome;
  outcome.velocity_BLF = velocity.detach();
  at::Tensor error;
  {
    const Timeline::Scope scope(timeline, Activity::kCompute, "loss");
    error = outcome.velocity_BLF -
            network.own_patches(batch.target_BCTHW, batch.shape, network.output_order());
    // The gradient of the mean over all elements of all samples of the step: the sum over all ranks
    // is then the sum over sequence ranks and the average over replicas.
    const double elements =
        static_cast<double>(batch.shape.elements()) * static_cast<double>(samples);
    outcome.loss = error.to(at::kDouble).square().sum().item<double>() / elements;
    error.mul_(2 / elements);
  }
  const PhaseScope phase(timeline, Phase::kBackward);
  {
    // What LibTorch does between the functions of this project: it sums the gradients of what is
    // used several times, and adds those of parameters to the flat buffer. Not on a device, whose
    // stream stands still where the host is late: that is not to be taken for compute.
    const bool on_host = network.mesh().device().is_cpu();
    const Timeline::Scope scope(on_host ? timeline : nullptr, Activity::kCompute, "autograd");
    velocity.backward(error);
  }
  network.settle(batch.shape);
  return outcome;
}

}  // namespace sprocket::runtime
