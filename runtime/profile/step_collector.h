// Turns a rank's intervals and recorded operations into a RankProfile, step by step.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "parallel/mesh.h"
#include "parallel/sequence_attention.h"
#include "runtime/metrics/head_shares.h"
#include "runtime/profile/interval_set.h"
#include "runtime/profile/rank_profile.h"
#include "runtime/train/step_outcome.h"

namespace sprocket::runtime {

// The sets behind a step's numbers, exposed for tests: intervals and records in, times out.
StepTimes step_times(std::span<const Interval> intervals, std::span<const Span> in_flight,
                     Span step);

class StepCollector {
 public:
  // Turns the mesh's timeline on (there may be none: then compute is unknown and counts as zero).
  // `mesh` must outlive the collector.
  explicit StepCollector(const parallel::Mesh& mesh, int layers);

  // Everything recorded before is discarded; on a device it waits until that is done.
  void begin_step();
  // Takes in what has been recorded since. Call it often enough that no recorder's ring runs over:
  // once for each micro-batch.
  void collect(std::span<const parallel::AttentionSlot> slots);
  // Ends the step, on a device when its work is done; its numbers go into the profile when
  // `reported`.
  StepTimes end_step(int64_t tokens, bool reported);

  // Density and coverage of the running or last step, over layers and micro-batches.
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
  const RankProfile& profile() const { return profile_; }

 private:
  struct Group {
    const comm::Communicator* communicator;
    int64_t next_sequence = 0;
  };
  // Those that a device still has under way are left for the next time, unless `last`.
  void collect_records(bool last);

  const parallel::Mesh& mesh_;
  std::vector<Group> groups_;
  std::vector<std::pair<int32_t, comm::OpRecord>> records_;
  std::vector<LayerShares> step_layers_;
  std::vector<double> step_pairs_;
  LayerHeadShares step_domain_coverage_, step_kept_mass_;
  LayerHeadShares step_head_density_, step_head_coverage_;
  int64_t step_begin_ns_ = 0;
  int64_t step_lost_ = 0;
  RankProfile profile_;
};

}  // namespace sprocket::runtime
