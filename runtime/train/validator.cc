#include "runtime/train/validator.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/tensor.h>

#include <optional>

#include "runtime/jobs/rank_agreement.h"
#include "runtime/plan/job_specs.h"
#include "runtime/train/flow.h"
#include "runtime/train/job_diffusion.h"
#include "runtime/train/noisy_latent.h"
#include "runtime/train/text_input.h"

namespace sprocket::runtime {
namespace {

constexpr int64_t kValidationStep = -1;  // of the draws' keys: no training step

}  // namespace

Validator::Validator(Network& network, data::LatentDataset& data)
    : network_(network), data_(data), diffusion_(job_diffusion(network.job())) {}

double Validator::own_error(const data::Sample& sample, double timestep, int64_t number,
                            int64_t step) {
  const config::Job& job = network_.job();
  const data::LatentShape& shape = data_.index().samples[sample.index].shape;
  const std::vector<float> noise =
      draw_noise(shape.elements(), {job.training().validation().seed(), kValidationStep, number});
  const NoisyLatent input = add_noise(diffusion_, sample.latent, noise, timestep, shape);
  const at::Tensor velocity = network_.velocity(
      network_.own_patches(input.noisy, shape, models::FeatureOrder::kChannelFirst),
      at::tensor({input.timestep}), text_tensor(job.model(), sample.text), shape,
      attention_spec(job.attention(), step));
  const at::Tensor error =
      velocity - network_.own_patches(input.target, shape, network_.output_order());
  return error.to(at::kDouble).square().sum().item<double>() /
         static_cast<double>(shape.elements());
}

ValidationLoss Validator::run(int64_t step) {
  const at::NoGradGuard no_gradients;
  const PhaseScope phase(network_.mesh().timeline(), Phase::kSample);
  const config::Job& job = network_.job();
  const config::Validation& validation = job.training().validation();
  const int levels = validation.levels(), draws = validation.draws();
  std::vector<double> errors(levels, 0);
  int64_t number = 0;  // of (clip, level, draw)
  for (int64_t clip = 0; clip < data_.size(); ++clip) {
    std::optional<data::Sample> sample;
    run_on_all(network_.mesh().world(), [&] { sample = data_.load(clip); });
    for (int level = 0; level < levels; ++level) {
      const double timestep = validation_timestep(job, level);
      for (int draw = 0; draw < draws; ++draw, ++number) {
        if (number % job.parallel().data() != network_.mesh().coordinate().data) continue;
        errors[level] += own_error(*sample, timestep, number, step);
      }
    }
  }
  network_.mesh()
      .world()
      .all_reduce(comm::Buffer::of(std::span(errors)), comm::ReduceOp::kSum)
      .wait_host();
  ValidationLoss loss;
  for (const double error : errors) {
    loss.by_level.push_back(error / static_cast<double>(data_.size() * draws));
    loss.mean += loss.by_level.back() / levels;
  }
  return loss;
}

}  // namespace sprocket::runtime
