#include "runtime/plan/distillation_plan.h"

#include <algorithm>
#include <tuple>

#include <fmt/format.h>

#include "configs/findings.h"
#include "runtime/plan/distillation_passes.h"
#include "runtime/plan/units.h"

namespace sprocket::runtime {
namespace {

using config::NetworkRole;

constexpr std::array kRoles = {NetworkRole::kStudent, NetworkRole::kTeacher,
                               NetworkRole::kFakeScore};

// The network by itself: nothing of it depends on the others but the data degree.
config::LoadedJob network_job(const config::LoadedJob& loaded, NetworkRole role, int world) {
  config::LoadedJob own = loaded;
  own.job = config::role_job(loaded.job, role);
  own.job.clear_distillation();
  config::Parallel& parallel = *own.job.mutable_parallel();
  if (parallel.outer() == 0) parallel.set_outer(world / (parallel.data() * parallel.ulysses()));
  return own;
}

// AUTO is what a run would choose with room enough.
config::Parallel with_room(config::Parallel parallel) {
  if (parallel.remote_kv() == config::Parallel::AUTO) {
    parallel.set_remote_kv(config::Parallel::KEEP);
  }
  return parallel;
}

std::string passes_text(double passes) { return passes == 0 ? "-" : fmt::format("{:.3g}", passes); }

std::string networks_table(const DistillationPlan& plan) {
  constexpr const char* kRow = "  {:<12}{:<14}{:>12}{:>16}{:>10}\n";
  std::string text = "Evaluations of a sample in a step (means), and updates\n" +
                     fmt::format(fmt::runtime(kRow), "network", "attention", "no backward",
                                 "with backward", "updates");
  for (const NetworkPlan& network : plan.networks) {
    text += fmt::format(fmt::runtime(kRow), config::name_of(network.role),
                        config::Attention::Method_Name(network.loaded.job.attention().method()),
                        passes_text(network.passes.plain), passes_text(network.passes.with_graph),
                        passes_text(network.passes.updates));
  }
  return text + '\n';
}

std::string choice_row(bool of_job, const std::string& network, const std::string& mesh,
                       double seconds, double exposed, int64_t bytes) {
  return fmt::format("{} {:<12}{:<64}{:>9}{:>10}{:>11}", of_job ? "*" : " ", network, mesh,
                     seconds_text(seconds), seconds_text(exposed),
                     megabytes_text(static_cast<double>(bytes)));
}

std::string choice_rows(const DistillationPlan& plan, const NetworkChoice& choice, bool of_job) {
  std::string text;
  for (size_t i = 0; i < plan.networks.size(); ++i) {
    const Candidate& candidate = *choice.candidates[i];
    text += choice_row(of_job, config::name_of(plan.networks[i].role), name_of(candidate),
                       candidate.step.seconds, candidate.step.exposed, candidate.step_bytes) +
            '\n';
  }
  return text +
         choice_row(of_job, "a step", "", choice.seconds, choice.exposed, choice.step_bytes) +
         fmt::format("{:>11}\n{}", gibibytes_text(static_cast<double>(choice.memory.total())),
                     choice.fits ? "\n" : "  does not fit\n\n");
}

std::string meshes_text(const DistillationPlan& plan, const NetworkChoice& choice) {
  std::string text;
  for (size_t i = 0; i < plan.networks.size(); ++i) {
    text += fmt::format("{}{}: {}", i == 0 ? "" : "; ", config::name_of(plan.networks[i].role),
                        name_of(*choice.candidates[i]));
  }
  return text;
}

}  // namespace

const Candidate* NetworkPlan::best(int data) const {
  const auto found = std::ranges::find_if(candidates, [&](const Candidate& candidate) {
    return candidate.legal() && candidate.parallel.data() == data;
  });
  return found == candidates.end() ? nullptr : &*found;
}

const Candidate* NetworkPlan::written() const {
  const config::Parallel own = with_room(loaded.job.parallel());
  const auto found = std::ranges::find_if(candidates, [&](const Candidate& candidate) {
    return candidate.legal() && candidate.same_as(own);
  });
  return found == candidates.end() ? nullptr : &*found;
}

NetworkChoice network_choice(const config::Job& job, const config::LatentShape& shape,
                             const ClusterModel& cluster,
                             const std::array<const Candidate*, 3>& candidates) {
  NetworkChoice choice{candidates};
  for (const Candidate* candidate : candidates) {
    choice.seconds += candidate->step.seconds;
    choice.exposed += candidate->step.exposed;
    choice.step_bytes += candidate->step_bytes;
  }
  config::Job chosen = job;
  *chosen.mutable_parallel() = candidates[0]->parallel;
  *chosen.mutable_distillation()->mutable_teacher()->mutable_parallel() = candidates[1]->parallel;
  *chosen.mutable_distillation()->mutable_fake_score()->mutable_parallel() =
      candidates[2]->parallel;
  const int sequence = candidates[0]->parallel.outer() * candidates[0]->parallel.ulysses();
  for (int rank = 0; rank < sequence; ++rank) {
    const MemoryEstimate memory = estimate_distillation_memory(chosen, shape, rank);
    if (memory.total() > choice.memory.total()) choice.memory = memory;
  }
  choice.fits = static_cast<double>(choice.memory.total()) <= cluster.device.memory;
  return choice;
}

DistillationPlan plan_distillation(
    const config::LoadedJob& loaded, const config::LatentShape& shape, const ClusterModel& cluster,
    const std::function<LayerPlanner(config::NetworkRole, const config::Job&)>& planner_of) {
  DistillationPlan plan;
  for (const NetworkRole role : kRoles) {
    const config::LoadedJob own = network_job(loaded, role, cluster.world());
    NetworkPlan& network = plan.networks.emplace_back(
        role, own, distillation_passes(loaded.job, role), planner_of(role, own.job));
    network.candidates = make_candidates(own, shape, network.planner, network.passes);
  }
  for (const int64_t data : config::divisors(cluster.world())) {
    std::array<const Candidate*, 3> best;
    std::ranges::transform(plan.networks, best.begin(), [&](const NetworkPlan& network) {
      return network.best(static_cast<int>(data));
    });
    if (std::ranges::find(best, nullptr) != best.end()) continue;
    plan.choices.push_back(network_choice(loaded.job, shape, cluster, best));
  }
  std::ranges::stable_sort(plan.choices, {}, [](const NetworkChoice& choice) {
    return std::tuple(!choice.fits, choice.seconds);
  });
  return plan;
}

std::string distillation_plan_text(const config::Job& job, const config::LatentShape& shape,
                                   const ClusterModel& cluster, const DistillationPlan& plan) {
  std::string text = networks_table(plan);
  text +=
      "Each network's fastest mesh (data x outer x ulysses), for each data degree, which they "
      "share\n" +
      fmt::format("  {:<12}{:<64}{:>9}{:>10}{:>11}{:>11}\n", "network", "mesh, strategy", "a step",
                  "exposed", "sent", "memory");
  for (const NetworkChoice& choice : plan.choices) text += choice_rows(plan, choice, false);
  std::array<const Candidate*, 3> own;
  std::ranges::transform(plan.networks, own.begin(), &NetworkPlan::written);
  const bool is_legal = std::ranges::find(own, nullptr) == own.end();
  if (is_legal) {
    text += choice_rows(plan, network_choice(job, shape, cluster, own), true) +
            "* as the job is written\n";
  }
  if (plan.choices.empty()) {
    return text +
           fmt::format("Nothing is legal on {} ranks for all three networks.\n", cluster.world());
  }
  const NetworkChoice& first = plan.choices.front();
  if (!first.fits) {
    return text + fmt::format(
                      "None of these fits into {} of a device: more ranks, adapters "
                      "(training.lora), training.activation_checkpointing: BLOCK or a "
                      "smaller micro_batch help.\n",
                      gibibytes_text(cluster.device.memory));
  }
  return text + fmt::format("Recommended: {}: {} a step.\n", meshes_text(plan, first),
                            seconds_text(first.seconds));
}

}  // namespace sprocket::runtime
