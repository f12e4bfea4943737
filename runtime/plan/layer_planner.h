// One attention layer of a job on a cluster, for any mesh and strategy: who sends what, and how
// long it takes.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "configs/job.pb.h"
#include "configs/validate.h"
#include "kernels/segment_table.h"
#include "parallel/traffic.h"
#include "runtime/plan/attention_cost.h"
#include "runtime/plan/cluster_model.h"
#include "runtime/plan/selection_counts.h"

namespace sprocket::runtime {

// The selection to plan for: a table over all query blocks and key segments of the job, or figures.
struct SelectionSource {
  std::string description;
  std::shared_ptr<const kernels::SegmentTable> table;  // null: of the two figures
  // The same over the video's blocks and before any budget, to compare block orders; null where it
  // is unknown.
  std::shared_ptr<const kernels::SegmentTable> unbudgeted;
  double density = 1;
  double coverage = 1;
};

struct LayerPlan {
  parallel::ShardPlan shards;
  std::vector<std::vector<parallel::TrafficRow>> traffic;  // by sequence rank, of a micro-batch
  AttentionWork work;
  AttentionCost cost;
  double density = 1;   // selected pairs / all pairs
  double coverage = 0;  // needed remote rows / all remote rows
  // Of K and V of other ranks that a rank holds at once with all_gather and selected, the most of
  // any.
  double received_elements = 0;

  int64_t bytes(int rank, Phase phase) const;
  int64_t messages(int rank, Phase phase) const;
  int busiest() const;  // the sequence rank that sends most in both phases together
};

class LayerPlanner {
 public:
  // The attention is that of training step `step`. `shape` has passed check_latent_shape.
  LayerPlanner(const config::Job& job, const config::LatentShape& shape, int64_t step,
               SelectionSource source, ClusterModel cluster);

  // parallel.ulysses, outer, strategy and remote_kv of `job` are legal; all else of it is that
  // of the constructor's job.
  LayerPlan plan(const config::Job& job);

  const parallel::TokenLayout& layout() const { return layout_; }
  const ClusterModel& cluster() const { return cluster_; }
  const SelectionSource& source() const { return source_; }
  const parallel::AttentionSpec& spec() const { return shape_.spec; }

 private:
  struct Counts {
    SelectionShards shards;
    SelectionCounts counts;
  };
  const Counts& counts_of(int outer);
  RankWork rank_work(const LayerPlan& plan, int rank, const Counts& counts,
                     const parallel::SelectedRows& rows) const;
  void add_transfers(LayerPlan& plan) const;

  SelectionSource source_;
  ClusterModel cluster_;
  parallel::TokenLayout layout_;
  parallel::AttentionShape shape_;
  std::map<int, Counts> counts_;  // by outer degree
};

// The query blocks and key segments of a layout over `outer` ranks.
SelectionShards selection_shards(const parallel::TokenLayout& layout, int outer,
                                 const parallel::AttentionSpec& spec);

// K rows that sequence rank `rank` exchanges with the members of its outer group, and whether the
// group gathers everything instead (StrategySpec::gather_above).
parallel::SelectedRows selected_rows(const SelectionCounts& counts, const SelectionShards& shards,
                                     const parallel::MeshShape& mesh, int rank, int64_t batch,
                                     const parallel::StrategySpec& strategy);

}  // namespace sprocket::runtime
