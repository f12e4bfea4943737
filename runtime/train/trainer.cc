#include "runtime/train/trainer.h"

#include <cmath>

#include "base/error.h"
#include "parallel/tensor_buffer.h"
#include "runtime/jobs/rank_agreement.h"
#include "runtime/metrics/imbalance.h"
#include "runtime/train/flow.h"

namespace sprocket::runtime {

Trainer::Trainer(Network& network, Optimizer& optimizer, Ema* ema, data::LatentDataset& data,
                 StepCollector& collector)
    : network_(network),
      optimizer_(optimizer),
      ema_(ema),
      data_(data),
      order_(data.bucket_samples(), network.job().training().global_batch(),
             network.job().data().seed()),
      collector_(collector) {}

MicroBatch Trainer::load(int64_t step, int64_t micro) {
  const Timeline::Scope scope(network_.mesh().timeline(), Activity::kDataWait, "data.load");
  const config::Job& job = network_.job();
  const int64_t size = job.training().micro_batch();
  const int64_t replicas = job.parallel().data();
  const int64_t first = (micro * replicas + network_.mesh().coordinate().data) * size;
  std::vector<SampleKey> keys;
  std::vector<data::Sample> samples;
  for (int64_t lane = 0; lane < size; ++lane) {
    keys.push_back(
        {job.training().seed(), step, step * job.training().global_batch() + first + lane});
    samples.push_back(data_.load_or_substitute(order_.at(keys.back().index)));
  }
  const data::LatentShape shape = data_.index().samples[samples.front().index].shape;
  return make_micro_batch(job, shape, samples, keys);
}

bool Trainer::reduce(StepOutcome& outcome, double local_loss, bool stop) {
  const auto& layers = collector_.step_layers();
  std::vector<double> values = {local_loss, stop ? 1.0 : 0.0};
  for (const LayerShares& layer : layers) {
    values.push_back(layer.density.mean());
    values.push_back(layer.coverage.mean());
  }
  const int heads = network_.job().model().heads();
  const parallel::Mesh& mesh = network_.mesh();
  const size_t first_pairs = values.size(), ranks = mesh.world().size();
  values.resize(first_pairs + layers.size() * ranks);
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    values[first_pairs + layer * ranks + mesh.world().rank()] = collector_.step_pairs()[layer];
  }
  append_shares(collector_.step_domain_coverage(), values);
  append_shares(collector_.step_kept_mass(), values);
  comm::Communicator& world = mesh.world();
  world.all_reduce(comm::Buffer::of(std::span(values)), comm::ReduceOp::kSum).wait_host();
  outcome.loss = values[0];
  outcome.stop_requested = values[1] > 0;
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    outcome.density.push_back(values[2 + 2 * layer] / world.size());
    outcome.coverage.push_back(values[3 + 2 * layer] / world.size());
  }
  std::span<const double> rest = std::span(values).subspan(first_pairs);
  const size_t replicas = mesh.shape().data, group = mesh.shape().sequence();
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    double& sum = outcome.imbalance.emplace_back(0);
    for (size_t replica = 0; replica < replicas; ++replica, rest = rest.subspan(group)) {
      sum += imbalance(rest.first(group)) / static_cast<double>(replicas);
    }
  }
  outcome.domain_coverage =
      take_shares(static_cast<int>(collector_.step_domain_coverage().size()), heads, rest);
  outcome.kept_mass =
      take_shares(static_cast<int>(collector_.step_kept_mass().size()), heads, rest);
  return std::isfinite(outcome.loss);
}

std::vector<int> Trainer::ranks_with_non_finite_gradients() {
  comm::Communicator& world = network_.mesh().world();
  std::vector<double> bad(world.size());
  bad[world.rank()] = std::isfinite(optimizer_.gradient_norm()) ? 0 : 1;
  world.all_reduce(comm::Buffer::of(std::span(bad)), comm::ReduceOp::kSum).wait_host();
  std::vector<int> ranks;
  for (int rank = 0; rank < world.size(); ++rank) {
    if (bad[rank] > 0) ranks.push_back(rank);
  }
  return ranks;
}

StepOutcome Trainer::step(int64_t step, const std::atomic<bool>* stop, bool recorded) {
  const config::Training& training = network_.job().training();
  const int64_t micro_batches =
      training.global_batch() / (training.micro_batch() * network_.job().parallel().data());
  Timeline* const timeline = network_.mesh().timeline();
  if (timeline) timeline->position.step = step;
  collector_.begin_step(recorded);

  StepOutcome outcome;
  double local_loss = 0;
  {
    const Timeline::Scope scope(timeline, Activity::kCompute, "gradients.zero", [&] {
      return parallel::moving(network_.parameters().flat_gradients());
    });
    network_.parameters().zero_gradients();
  }
  for (int64_t micro = 0; micro < micro_batches; ++micro) {
    MicroBatch batch;
    run_on_all(network_.mesh().world(), [&] { batch = load(step, micro); });
    local_loss += forward_backward(network_, batch, step, training.global_batch()).loss;
    collector_.collect(network_.slots());
    outcome.shape = batch.shape;
    outcome.own_tokens += training.micro_batch() * network_.own_tokens(batch.shape).tokens();
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
  if (skipped_before_) outcome.non_finite_ranks = ranks_with_non_finite_gradients();
  sum_gradients(network_.parameters(), network_.mesh().tensors().world());
  {
    const Timeline::Scope scope(timeline, Activity::kCompute, "optimizer",
                                [&] { return optimizer_.work(); });
    outcome.gradient_norm = optimizer_.gradient_norm();
    outcome.learning_rate = learning_rate(training.optimizer(), step, training.steps());
    outcome.skipped = !std::isfinite(outcome.gradient_norm);
    skipped_before_ = outcome.skipped;
    if (!outcome.skipped) optimizer_.update(outcome.learning_rate, outcome.gradient_norm);
    if (!outcome.skipped && ema_) ema_->update();
  }
  outcome.times = collector_.end_step();
  return outcome;
}

}  // namespace sprocket::runtime
