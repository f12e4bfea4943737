// Strong and weak scaling of one transformer block over many devices, in closed form: even shards
// of one sample over all ranks, the same attention exchanged in four ways.
//
//   ring      R = n
//   Ulysses   U = n, as far as heads go
//   hybrid    U inside the node, a ring of R = n / U over the nodes
//   selected  U inside the node, the selected exchange over R = n / U
//
// U of the last two is the largest divisor of both heads and devices of a node. The transfers and
// times are attention_cost's. Efficiency is the time of the same work on one device with no
// communication and no copies for it, over n times the time on n. Strong scaling keeps the
// sequence; weak scaling keeps the tokens of a rank.
#pragma once

#include <string>
#include <vector>

#include "configs/job.pb.h"
#include "configs/validate.h"
#include "runtime/plan/cluster_model.h"

namespace sprocket::runtime {

struct ScalingSpec {
  std::vector<int> ranks;  // ascending
  double density = 1;      // of the selection
  // The most that a budget lets a rank need of the rows of others. It needs less where its query
  // blocks are few: at most 1 - (1 - density)^blocks, as if they selected independently.
  double budget = 1;
};

struct ScalingPoint {
  bool weak = false;
  std::string strategy;  // "ring", "Ulysses", "hybrid", "selected"
  int ranks = 1, outer = 1, ulysses = 1;
  double tokens = 0;
  double coverage = 0;                           // of the selected exchange
  double sent_bytes = 0;                         // by a rank in a forward and a backward
  double attention = 0, exposed = 0, layer = 0;  // seconds, forward and backward
  double efficiency = 0;
};

// Points that are not legal (heads, fewer blocks than ranks) are left out. The tokens of weak
// scaling are those of the shape on the first number of ranks. The cluster's nodes are as many as
// needed.
std::vector<ScalingPoint> simulate_scaling(const config::Job& job, const config::LatentShape& shape,
                                           const ClusterModel& cluster, const ScalingSpec& spec);

std::string scaling_csv(const std::vector<ScalingPoint>& points);
std::string scaling_text(const std::vector<ScalingPoint>& points);

// "8:4096": the powers of two from 8 to 4096, as factors of the first number. Throws ConfigError.
std::vector<int> parse_scale(const std::string& text);

}  // namespace sprocket::runtime
