// The planner's model of a step next to what a profile measured of it.
//
// The model is that of `sprocket plan` with the cluster's own figures and the density and coverage
// that were measured, so that an error is the machine's or the model's, not the selection's. It is
// of the slowest rank; what was measured is the mean of the ranks, so that an imbalance is an error
// as well.
#pragma once

#include <string>

#include "configs/cluster.pb.h"
#include "configs/load.h"
#include "configs/validate.h"
#include "runtime/profile/report.h"

namespace sprocket::runtime {

// Files that `advice` names in its command.
struct PredictionFiles {
  std::string job, cluster, profile;
};

// Rows, in ms: kernels and copies of attention of a layer and micro-batch, forward and backward
// apart; its exposed communication and all other compute of a layer, forward and backward together;
// one call of every exchange and gather of attention; the sum of the gradients; the optimizer; the
// step. What was not measured has no row.
//
// advice: the fastest other mesh and strategy on the same ranks, planned with measured figures
// (measured_cluster.h) and scaled so that the present one takes what it took; only when it saves a
// larger share of the step than the model errs by on the present one, and up to 256 ranks, for
// which all ways are planned in moments.
//
// The mesh, and what became of K and V, are the report's; its attention is that of the window's
// first step. Empty for a job that does not train. Throws ConfigError when the cluster has no rates
// for the job's precision or no link that the run's hosts need, when hosts have different numbers
// of ranks, and when the job cannot run on the shape.
profile::Prediction predict(const config::LoadedJob& loaded, const config::LatentShape& shape,
                            const config::Cluster& cluster, const profile::Report& measured,
                            const PredictionFiles& files);

// Sets what a report knows from a cluster: link_gb_s and link_share of operations, and peak, mfu
// and hfu where the cluster has a peak for `precision`. A rank's part of a link: half of one whose
// directions share it, an equal part of an adapter that the ranks of a host share.
void add_cluster_figures(const config::Cluster& cluster, int precision, profile::Report& report);

}  // namespace sprocket::runtime
