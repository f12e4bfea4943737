// How the three networks of a distillation are best divided among the ranks of a cluster.
#pragma once

#include <array>
#include <functional>
#include <string>
#include <vector>

#include "configs/roles.h"
#include "runtime/plan/candidates.h"

namespace sprocket::runtime {

struct NetworkPlan {
  config::NetworkRole role;
  config::LoadedJob loaded;  // of this network alone
  NetworkPasses passes;
  LayerPlanner planner;
  std::vector<Candidate> candidates;  // each with the network's part of a step

  // The fastest legal one with this data degree, and the one that is the job's own. Null: none.
  const Candidate* best(int data) const;
  const Candidate* written() const;
};

// One mesh and strategy for each network, all of one data degree.
struct NetworkChoice {
  std::array<const Candidate*, 3> candidates;  // in the order of the plans
  double seconds = 0, exposed = 0;             // of a step: the networks' parts, one after another
  int64_t step_bytes = 0;
  MemoryEstimate memory;  // of the three together, on the rank that needs most
  bool fits = true;
};

struct DistillationPlan {
  std::vector<NetworkPlan> networks;
  // Of `networks`' candidates, which they point into: the best meshes of every data degree that
  // each network has a legal one for, the fastest first, those that do not fit into memory after
  // those that do.
  std::vector<NetworkChoice> choices;
};

// `planner_of` makes a planner for the job of one network.
DistillationPlan plan_distillation(
    const config::LoadedJob& loaded, const config::LatentShape& shape, const ClusterModel& cluster,
    const std::function<LayerPlanner(config::NetworkRole, const config::Job&)>& planner_of);

// Legal candidates of the three, one of each network, as a choice.
NetworkChoice network_choice(const config::Job& job, const config::LatentShape& shape,
                             const ClusterModel& cluster,
                             const std::array<const Candidate*, 3>& candidates);

// The networks' evaluations, the choices with the job's own beside them, and a recommendation.
std::string distillation_plan_text(const config::Job& job, const config::LatentShape& shape,
                                   const ClusterModel& cluster, const DistillationPlan& plan);

}  // namespace sprocket::runtime
