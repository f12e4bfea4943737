// A cluster description with the figures that a profile measured in place of its own:
// `sprocket plan --from profile.json`.
//
//   rates      operations / time of the kernels, forward (with recomputed and sampled ones) and
//              backward apart for attention; the time of a pass for each query row is in them
//   copies     bytes of the copies / 2 / their time
//   bandwidth  of the operations over the link the best busbw (docs/profile.md) that one with at
//              least 64 KiB a call reached, without the latency: what travels beside kernels takes
//              longer than alone. Twice that where the duplex is HALF, and as often as ranks share
//              an adapter
//   latency    the shortest call of an operation with at most 4 KiB
//
// Nodes, devices, memory, the start of a kernel, further messages and overlap stay the cluster's.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "configs/cluster.pb.h"
#include "runtime/profile/report.h"

namespace sprocket::runtime {

// What a scope's time counts as in the planner.
enum class KernelKind {
  kAttention,        // passes of the segment kernel
  kSelection,        // scores, top-k, the coarse branch
  kAttentionCopies,  // packing, means, sums, conversions of attention
  kLinear,
  kOptimizer,
  kOther
};
KernelKind kind_of(const profile::KernelRow& kernel);

// A link that ranks of several nodes use, or of one alone.
config::Link::Class link_class_of(const profile::OperationRow& operation);

struct MeasuredFigure {
  std::string name;                // "linear_tflops", "INSIDE_NODE bandwidth_gb_s"
  std::optional<double> measured;  // empty: the cluster's stays
  double of_cluster = 0;
  std::string source;  // where it was measured, or why not
};

struct MeasuredCluster {
  config::Cluster cluster;
  std::vector<MeasuredFigure> figures;
};

// `precision`: a value of config::Compute::Precision that the cluster has rates for, and that the
// profile's job computes in.
MeasuredCluster measured_cluster(const config::Cluster& cluster, int precision,
                                 const profile::Report& report);

// Means over the layers; empty: unknown.
struct MeasuredSelection {
  std::optional<double> density, coverage;
};
MeasuredSelection measured_selection(const profile::Report& report);

// The table of `sprocket plan`.
std::string figures_text(const MeasuredCluster& measured, const std::string& profile);

}  // namespace sprocket::runtime
