#include "runtime/train/trainer.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/tensor.h>

#include <cmath>

#include "base/error.h"
#include "runtime/jobs/rank_agreement.h"
#include "runtime/plan/job_specs.h"
#include "runtime/train/flow.h"
#include "runtime/train/text_input.h"

namespace sprocket::runtime {

// B samples of one shape, the same on all ranks of a sequence group.
struct Trainer::MicroBatch {
  data::LatentShape shape;
  at::Tensor noisy_BCTHW;
  at::Tensor target_BCTHW;  // noise - x0
  at::Tensor timestep_B;
  at::Tensor text_BND;
};

Trainer::Trainer(Network& network, Optimizer& optimizer, data::LatentDataset& data,
                 StepCollector& collector)
    : network_(network),
      optimizer_(optimizer),
      data_(data),
      order_(data.bucket_samples(), network.job().training().global_batch(),
             network.job().data().seed()),
      collector_(collector) {}

Trainer::MicroBatch Trainer::load(int64_t step, int64_t micro) {
  const Timeline::Scope scope(network_.mesh().timeline(), Activity::kDataWait, "data.load");
  const config::Job& job = network_.job();
  const int64_t size = job.training().micro_batch();
  const int64_t replicas = job.parallel().data();
  const int64_t first = (micro * replicas + network_.mesh().coordinate().data) * size;
  MicroBatch batch;
  std::vector<at::Tensor> noisy, target, text;
  std::vector<float> timesteps;
  for (int64_t lane = 0; lane < size; ++lane) {
    const SampleKey key{job.training().seed(), step,
                        step * job.training().global_batch() + first + lane};
    data::Sample sample = data_.load_or_substitute(order_.at(key.index));
    batch.shape = data_.index().samples[sample.index].shape;
    const double level = draw_level(job.flow(), key);
    const std::vector<float> noise = draw_noise(batch.shape.elements(), key);
    const std::vector<int64_t> sizes = {1, batch.shape.c, batch.shape.t, batch.shape.h,
                                        batch.shape.w};
    const auto x0 = at::from_blob(sample.latent.data(), sizes, at::kFloat);
    const auto eps = at::from_blob(const_cast<float*>(noise.data()), sizes, at::kFloat);
    noisy.push_back(x0 * (1 - level) + eps * level);
    target.push_back(eps - x0);
    timesteps.push_back(static_cast<float>(kTimesteps * level));
    const bool dropped = drops_text(job.training().text_dropout(), key);
    text.push_back(text_tensor(job.model(), dropped ? std::span<const float>() : sample.text));
  }
  batch.noisy_BCTHW = at::cat(noisy);
  batch.target_BCTHW = at::cat(target);
  batch.timestep_B = at::tensor(timesteps);
  batch.text_BND = at::cat(text);
  return batch;
}

double Trainer::accumulate(const MicroBatch& batch, int64_t step) {
  Timeline* const timeline = network_.mesh().timeline();
  const at::Tensor patches =
      network_.own_patches(batch.noisy_BCTHW, batch.shape, models::FeatureOrder::kChannelFirst);
  const at::Tensor velocity =
      network_.velocity(patches, batch.timestep_B, batch.text_BND, batch.shape,
                        attention_spec(network_.job().attention(), step));
  at::Tensor error;
  double sum = 0;
  {
    const Timeline::Scope scope(timeline, Activity::kCompute, "loss");
    error = velocity.detach() - network_.own_patches(batch.target_BCTHW, batch.shape,
                                                     models::FeatureOrder::kChannelLast);
    // The gradient of the mean over all elements of all samples of the step: the sum over all ranks
    // is then the sum over sequence ranks and the average over replicas.
    const double elements =
        static_cast<double>(batch.shape.elements()) * network_.job().training().global_batch();
    sum = error.to(at::kDouble).square().sum().item<double>() / elements;
    error.mul_(2 / elements);
  }
  const PhaseScope phase(timeline, Phase::kBackward);
  velocity.backward(error);
  return sum;
}

bool Trainer::reduce(StepOutcome& outcome, double local_loss, bool stop) {
  const auto& layers = collector_.step_layers();
  std::vector<double> values = {local_loss, stop ? 1.0 : 0.0};
  for (const LayerShares& layer : layers) {
    values.push_back(layer.density.mean());
    values.push_back(layer.coverage.mean());
  }
  comm::Communicator& world = network_.mesh().world();
  world.all_reduce(comm::Buffer::of(std::span(values)), comm::ReduceOp::kSum).wait_host();
  outcome.loss = values[0];
  outcome.stop_requested = values[1] > 0;
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    outcome.density.push_back(values[2 + 2 * layer] / world.size());
    outcome.coverage.push_back(values[3 + 2 * layer] / world.size());
  }
  return std::isfinite(outcome.loss);
}

StepOutcome Trainer::step(int64_t step, const std::atomic<bool>* stop, bool reported) {
  const config::Training& training = network_.job().training();
  const int64_t micro_batches =
      training.global_batch() / (training.micro_batch() * network_.job().parallel().data());
  Timeline* const timeline = network_.mesh().timeline();
  if (timeline) timeline->position.step = step;
  collector_.begin_step();

  StepOutcome outcome;
  double local_loss = 0;
  network_.parameters().zero_gradients();
  for (int64_t micro = 0; micro < micro_batches; ++micro) {
    MicroBatch batch;
    run_on_all(network_.mesh().world(), [&] { batch = load(step, micro); });
    local_loss += accumulate(batch, step);
    collector_.collect(network_.slots());
    outcome.shape = batch.shape;
    outcome.own_tokens += training.micro_batch() * network_.own_tokens(batch.shape).count;
    outcome.tokens = training.global_batch() * network_.layout(batch.shape).tokens();
  }
  const bool finite = reduce(outcome, local_loss, stop != nullptr && stop->load());
  if (!finite) {
    throw_agreed_non_finite(fmt::format(
        "step {}: the loss is {}; the weights before this step are those of the newest checkpoint "
        "or later. Lower training.optimizer.learning_rate or look at the data",
        step, outcome.loss));
  }

  const PhaseScope phase(timeline, Phase::kOptimizer);
  sum_gradients(network_.parameters(), network_.mesh().world());
  {
    const Timeline::Scope scope(timeline, Activity::kCompute, "optimizer");
    outcome.gradient_norm = optimizer_.gradient_norm();
    outcome.learning_rate = learning_rate(training.optimizer(), step, training.steps());
    outcome.skipped = !std::isfinite(outcome.gradient_norm);
    if (!outcome.skipped) optimizer_.update(outcome.learning_rate, outcome.gradient_norm);
  }
  outcome.times = collector_.end_step(outcome.own_tokens, reported);
  return outcome;
}

}  // namespace sprocket::runtime
