#include "runtime/plan/candidates.h"

#include <algorithm>
#include <cmath>
#include <tuple>

#include <fmt/format.h>

#include "configs/findings.h"

namespace sprocket::runtime {
namespace {

bool keeps_or_fetches(config::Parallel::Strategy strategy) {
  switch (strategy) {
    case config::Parallel::SELECTED:
    case config::Parallel::ALL_GATHER:
      return true;
    case config::Parallel::RING:
      return false;
  }
  return false;
}

std::vector<std::string> reasons_of(const config::Job& job, const config::LatentShape& shape,
                                    int world) {
  config::LoadOptions options;
  options.world = world;
  std::vector<std::string> reasons;
  for (const auto& violation : config::find_violations(job, options)) {
    reasons.push_back(violation.paths.front() + ": " + violation.message);
  }
  if (!reasons.empty()) return reasons;
  for (const auto& violation : config::find_shape_violations(job, shape)) {
    reasons.push_back(violation.paths.front() + ": " + violation.message);
  }
  return reasons;
}

void evaluate(const config::Job& job, LayerPlanner& planner, const NetworkPasses& passes,
              Candidate& candidate) {
  const LayerPlan plan = planner.plan(job);
  const int busiest = plan.busiest();
  candidate.forward_bytes = plan.bytes(busiest, Phase::kForward);
  candidate.forward_messages = plan.messages(busiest, Phase::kForward);
  candidate.backward_bytes = plan.bytes(busiest, Phase::kBackward);
  candidate.backward_messages = plan.messages(busiest, Phase::kBackward);
  const BlockRuns runs = block_runs(job, passes);
  const int world = job.parallel().data() * plan.shards.mesh.sequence();
  const GradientTraffic gradients = gradient_traffic(trained_count(job), world);
  const auto in_step = [&](int64_t forward, int64_t backward, int64_t update) {
    return std::llround(runs.forwards * static_cast<double>(forward) +
                        runs.backwards * static_cast<double>(backward) +
                        passes.updates * static_cast<double>(update));
  };
  candidate.step_bytes =
      in_step(candidate.forward_bytes, candidate.backward_bytes, gradients.bytes);
  candidate.step_messages =
      in_step(candidate.forward_messages, candidate.backward_messages, gradients.messages);
  candidate.density = plan.density;
  candidate.coverage = plan.coverage;

  int fullest = 0;
  for (int rank = 1; rank < plan.shards.mesh.sequence(); ++rank) {
    if (plan.shards.tokens_of(rank) > plan.shards.tokens_of(fullest)) fullest = rank;
  }
  const int64_t tokens = plan.shards.tokens_of(fullest);
  const int outer = fullest / plan.shards.mesh.ulysses;
  const int64_t shard = plan.shards.outer_tokens[outer + 1] - plan.shards.outer_tokens[outer];
  const bool fetches =
      plan.work.outer == OuterKind::kSelected || plan.work.outer == OuterKind::kAllGather;
  // In tokens of all heads of the rank.
  const double fetched = plan.received_elements * job.parallel().ulysses() /
                         (2.0 * job.training().micro_batch() * job.model().dim());
  const int64_t remote = fetches ? static_cast<int64_t>(std::ceil(fetched))
                         : plan.work.outer == OuterKind::kRing ? planner.layout().tokens() - shard
                                                               : 0;
  candidate.memory = estimate_training_memory(job, {tokens, remote});
  candidate.fits = static_cast<double>(candidate.memory.total()) <= planner.cluster().device.memory;
  candidate.attention = plan.cost;
  candidate.step = step_cost(job, planner.cluster(), plan.cost, tokens, passes);
}

auto order_of(const Candidate& candidate) {
  const config::Parallel& parallel = candidate.parallel;
  return std::tuple(!candidate.legal(), !candidate.fits, candidate.step.seconds,
                    candidate.memory.total(), parallel.data(), parallel.outer(), parallel.ulysses(),
                    parallel.strategy(), parallel.remote_kv());
}

}  // namespace

bool Candidate::same_as(const config::Parallel& other) const {
  return parallel.data() == other.data() && parallel.outer() == other.outer() &&
         parallel.ulysses() == other.ulysses() &&
         (!has_outer() ||
          (parallel.strategy() == other.strategy() &&
           (!keeps_or_fetches(parallel.strategy()) || parallel.remote_kv() == other.remote_kv())));
}

std::vector<Candidate> make_candidates(const config::LoadedJob& loaded,
                                       const config::LatentShape& shape, LayerPlanner& planner,
                                       const NetworkPasses& passes) {
  const int64_t world = planner.cluster().world();
  std::vector<Candidate> candidates;
  const auto add = [&](config::Parallel parallel) {
    config::Job job = loaded.job;
    *job.mutable_parallel() = parallel;
    Candidate candidate;
    candidate.parallel = std::move(parallel);
    candidate.reasons = reasons_of(job, shape, static_cast<int>(world));
    if (candidate.legal()) evaluate(job, planner, passes, candidate);
    candidates.push_back(std::move(candidate));
  };
  for (const int64_t data : config::divisors(world)) {
    for (const int64_t ulysses : config::divisors(world / data)) {
      config::Parallel parallel = loaded.job.parallel();
      parallel.set_data(static_cast<int>(data));
      parallel.set_ulysses(static_cast<int>(ulysses));
      parallel.set_outer(static_cast<int>(world / (data * ulysses)));
      if (parallel.outer() == 1) {
        add(parallel);
        continue;
      }
      for (int value = 0; value <= config::Parallel::Strategy_MAX; ++value) {
        if (!config::Parallel::Strategy_IsValid(value)) continue;
        parallel.set_strategy(static_cast<config::Parallel::Strategy>(value));
        const bool choice = keeps_or_fetches(parallel.strategy());
        for (const auto remote_kv : {config::Parallel::KEEP, config::Parallel::FETCH_AGAIN}) {
          if (!choice && remote_kv != config::Parallel::KEEP) continue;
          parallel.set_remote_kv(remote_kv);
          add(parallel);
        }
      }
    }
  }
  std::stable_sort(
      candidates.begin(), candidates.end(),
      [](const Candidate& a, const Candidate& b) { return order_of(a) < order_of(b); });
  return candidates;
}

const Candidate* best_candidate(const std::vector<Candidate>& candidates) {
  if (candidates.empty() || !candidates.front().legal() || !candidates.front().fits) return nullptr;
  return &candidates.front();
}

std::string strategy_name(const Candidate& candidate) {
  if (!candidate.has_outer()) return candidate.parallel.ulysses() > 1 ? "Ulysses" : "one rank";
  return config::Parallel::Strategy_Name(candidate.parallel.strategy());
}

std::string name_of(const Candidate& candidate) {
  const config::Parallel& parallel = candidate.parallel;
  std::string text = fmt::format("data {} x outer {} x ulysses {}", parallel.data(),
                                 parallel.outer(), parallel.ulysses());
  if (!candidate.has_outer()) return text;
  text += ", " + strategy_name(candidate);
  if (!keeps_or_fetches(parallel.strategy())) return text;
  const bool again = parallel.remote_kv() == config::Parallel::FETCH_AGAIN;
  return text + (again ? ", K and V fetched again" : ", K and V kept");
}

}  // namespace sprocket::runtime
