// Every way to divide a job's work among the ranks of a cluster, with what it costs.
#pragma once

#include <string>
#include <vector>

#include "configs/load.h"
#include "runtime/plan/layer_planner.h"
#include "runtime/plan/memory_estimate.h"
#include "runtime/plan/step_cost.h"

namespace sprocket::runtime {

struct Candidate {
  config::Parallel parallel;         // the job's, with this mesh and strategy
  std::vector<std::string> reasons;  // why it is illegal; empty: it is legal, and the rest is set

  // Of the rank that sends most, per layer and micro-batch, and in a whole step.
  int64_t forward_bytes = 0, forward_messages = 0;
  int64_t backward_bytes = 0, backward_messages = 0;
  int64_t step_bytes = 0, step_messages = 0;
  double density = 1, coverage = 0;
  MemoryEstimate memory;  // of the rank that needs most
  bool fits = true;       // into the memory of a device
  AttentionCost attention;
  StepCost step;

  bool legal() const { return reasons.empty(); }
  bool has_outer() const { return parallel.outer() > 1; }
  // Whether `other` is the same mesh and, where there is an outer axis, the same strategy.
  bool same_as(const config::Parallel& other) const;
};

// All of data x outer x ulysses = the cluster's ranks, with all strategies where the outer degree
// is above 1, and K and V kept or fetched again where the strategy leaves the choice. Legal ones
// first, by the time of a step; those that do not fit into memory after those that do.
// `passes`: of the job's network in a step.
std::vector<Candidate> make_candidates(const config::LoadedJob& loaded,
                                       const config::LatentShape& shape, LayerPlanner& planner,
                                       const NetworkPasses& passes = {});

// The best of all, or of those of one strategy: the first legal one that fits. Null: there is none.
const Candidate* best_candidate(const std::vector<Candidate>& candidates);

// "data 1 x outer 2 x ulysses 4, SELECTED, K and V kept"
std::string name_of(const Candidate& candidate);
std::string strategy_name(const Candidate& candidate);

}  // namespace sprocket::runtime
