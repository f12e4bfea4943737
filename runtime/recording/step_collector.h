// Takes in, step by step, what a rank's timeline and its communicators recorded.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "parallel/mesh.h"
#include "parallel/sequence_attention.h"
#include "runtime/metrics/head_shares.h"
#include "runtime/profile/recorded_step.h"
#include "runtime/profile/step_parts.h"

namespace sprocket::runtime {

// A communicator of more than one rank.
struct CollectedGroup {
  std::string name;  // "sp.outer"; "sp.outer.host" of a rank whose tensors have another one
  int index = 0;     // which of the groups of that name
  const comm::Communicator* communicator = nullptr;
};

struct LayerShares {
  profile::Spread density, coverage;  // over micro-batches
};

class StepCollector {
 public:
  // `mesh` must outlive the collector; it may have no timeline: then compute counts as zero.
  explicit StepCollector(const parallel::Mesh& mesh, int layers);

  // Groups of another mesh over the same ranks, called prefix and their name; before the first
  // step. It must outlive the collector.
  void add_mesh(const parallel::Mesh& mesh, const std::string& prefix);

  // Everything recorded before is discarded; on a device it waits until that is done. Not
  // `recorded`: nothing is recorded until the next step, and the step has its wall time alone.
  void begin_step(bool recorded = true);
  // Takes in what has been recorded since. Call it often enough that no recorder's ring runs over:
  // once for each micro-batch.
  void collect(std::span<const parallel::AttentionSlot> slots);
  // Ends the step, on a device when its work is done.
  profile::StepParts end_step();

  // Of the running or last step, over layers and micro-batches.
  const std::vector<LayerShares>& step_layers() const { return step_layers_; }
  // (query row, key row) pairs that this rank computed, by layer, summed over the micro-batches.
  const std::vector<double>& step_pairs() const { return step_pairs_; }
  // Summed over the micro-batches; empty without domains, or without a budget.
  const LayerHeadShares& step_domain_coverage() const { return step_domain_coverage_; }
  const LayerHeadShares& step_kept_mass() const { return step_kept_mass_; }
  // Density and coverage by layer and head: parts and wholes summed over the micro-batches; those
  // of all ranks add up to the model's. Without layers before anything was collected.
  const LayerHeadShares& step_head_density() const { return step_head_density_; }
  const LayerHeadShares& step_head_coverage() const { return step_head_coverage_; }

  const std::vector<CollectedGroup>& groups() const { return groups_; }
  // Of the last step, until the next one begins. Operations have indices of groups().
  bool recorded() const { return recorded_; }
  profile::Span span() const { return span_; }
  const std::vector<Interval>& intervals() const { return intervals_; }
  const std::vector<std::pair<int32_t, comm::OpRecord>>& operations() const { return operations_; }
  // By world rank, nothing left out for a rank of two groups.
  std::vector<profile::SentTo> sent() const;
  int64_t lost_records() const { return lost_; }

 private:
  // Operations that a device still has under way are left for the next time, unless `last`.
  void collect_operations(bool last);

  const parallel::Mesh& mesh_;
  std::vector<CollectedGroup> groups_;
  std::vector<int64_t> next_sequence_;             // by group
  std::vector<std::vector<int64_t>> sent_before_;  // by group and member
  std::vector<LayerShares> step_layers_;
  std::vector<double> step_pairs_;
  LayerHeadShares step_domain_coverage_, step_kept_mass_;
  LayerHeadShares step_head_density_, step_head_coverage_;
  bool recorded_ = false;
  profile::Span span_;
  std::vector<Interval> intervals_;
  std::vector<std::pair<int32_t, comm::OpRecord>> operations_;
  int64_t lost_ = 0;
};

}  // namespace sprocket::runtime
