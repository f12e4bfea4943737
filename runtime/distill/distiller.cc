#include "runtime/distill/distiller.h"

#include <array>
#include <cmath>

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>

#include "base/error.h"
#include "runtime/train/flow.h"

namespace sprocket::runtime {

Distiller::Distiller(const Networks& networks, std::unique_ptr<Recipe> recipe,
                     TrainedNetwork student, TrainedNetwork fake_score,
                     comm::Communicator& replicas, comm::Communicator& world,
                     const DistillerOptions& options)
    : networks_(networks),
      recipe_(std::move(recipe)),
      student_(std::move(student)),
      fake_score_(std::move(fake_score)),
      replicas_(replicas),
      world_(world),
      options_(options) {}

Denoiser& Distiller::network(config::NetworkRole role) const {
  switch (role) {
    case config::NetworkRole::kStudent:
      return networks_.student;
    case config::NetworkRole::kTeacher:
      return networks_.teacher;
    case config::NetworkRole::kFakeScore:
      return networks_.fake_score;
  }
  throw InternalError("a role without a network");
}

const TrainedNetwork& Distiller::trained(config::NetworkRole role) const {
  SPROCKET_CHECK(role != config::NetworkRole::kTeacher, "the teacher is frozen");
  return role == config::NetworkRole::kStudent ? student_ : fake_score_;
}

std::vector<PhaseOutcome> Distiller::step(
    int64_t step, std::span<Scene> scenes,
    const std::function<void(config::NetworkRole)>& after_pass) {
  std::vector<PhaseOutcome> outcomes;
  const std::vector<PhaseSpec> phases = recipe_->phases(step);
  for (size_t phase = 0; phase < phases.size(); ++phase) {
    const int64_t start = monotonic_ns();
    std::optional<FakeScoreScope> fake_score;
    if (phases[phase].trained == config::NetworkRole::kFakeScore) {
      fake_score.emplace(options_.timeline);
    }
    const Means means = gradients(phase, phases[phase], scenes, after_pass);
    outcomes.push_back(update(phases[phase], step, means));
    outcomes.back().seconds = 1e-9 * static_cast<double>(monotonic_ns() - start);
  }
  return outcomes;
}

Distiller::Means Distiller::gradients(size_t phase, const PhaseSpec& spec, std::span<Scene> scenes,
                                      const std::function<void(config::NetworkRole)>& after_pass) {
  trained(spec.trained).parameters.zero_gradients();
  Means means;
  for (Scene& scene : scenes) {
    const at::AutoGradMode with_graph(true);
    const double share =
        static_cast<double>(scene.batch()) / static_cast<double>(options_.global_batch);
    scene.score_gap.reset();
    const at::Tensor loss = recipe_->loss(phase, networks_, scene) * share;
    means.loss += loss.item<double>();
    means.has_gap = scene.score_gap.has_value();
    means.score_gap += share * scene.score_gap.value_or(0);
    {
      const PhaseScope backward(options_.timeline, Phase::kBackward);
      loss.backward();
    }
    network(spec.trained).end_backward();
    if (after_pass) after_pass(spec.trained);
  }
  return means;
}

PhaseOutcome Distiller::update(const PhaseSpec& spec, int64_t step, const Means& own_means) {
  const TrainedNetwork& own = trained(spec.trained);
  PhaseOutcome outcome;
  outcome.name = spec.name;
  std::array<double, 2> means = {own_means.loss, own_means.score_gap};
  replicas_.all_reduce(comm::Buffer::of(std::span<double>(means)), comm::ReduceOp::kSum)
      .wait_host();
  outcome.loss = means[0];
  if (own_means.has_gap) outcome.score_gap = means[1];
  const PhaseScope phase(options_.timeline, Phase::kOptimizer);
  sum_gradients(own.parameters, world_);
  const Timeline::Scope scope(options_.timeline, Activity::kCompute, "optimizer",
                              [&] { return own.optimizer.work(); });
  outcome.gradient_norm = own.optimizer.gradient_norm();
  outcome.learning_rate = learning_rate(own.options, step, options_.steps);
  outcome.finite = std::isfinite(outcome.loss) && std::isfinite(outcome.gradient_norm);
  outcome.outlier = spec.skip_above > 0 && outcome.loss > spec.skip_above;
  if (!outcome.updated()) return outcome;
  own.optimizer.update(outcome.learning_rate, outcome.gradient_norm);
  if (own.ema) own.ema->update();
  return outcome;
}

}  // namespace sprocket::runtime
