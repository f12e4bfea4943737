// Time of a training step: the attention layers and all the rest.
#pragma once

#include <cstdint>

#include "configs/job.pb.h"
#include "runtime/plan/attention_cost.h"
#include "runtime/plan/cluster_model.h"

namespace sprocket::runtime {

struct StepCost {
  // One transformer block and micro-batch, attention included.
  double layer_forward = 0, layer_backward = 0;
  double gradient_sum = 0;  // of all parameters, over all ranks
  double optimizer = 0;
  double seconds = 0;
  double exposed = 0;  // communication that no kernel hides, the sum of gradients included
};

// How often a step evaluates a network for each of its samples, and updates it; means, where a
// step draws what it does.
struct NetworkPasses {
  double plain = 0;       // without a backward
  double with_graph = 1;  // with one
  double updates = 1;
};

// `own_tokens`: of the rank that has most. job.parallel.data is resolved. With adapters
// (training.lora) a backward has no products for the weights; their own are not counted.
StepCost step_cost(const config::Job& job, const ClusterModel& cluster,
                   const AttentionCost& attention, int64_t own_tokens,
                   const NetworkPasses& passes = {});

// Forwards and backwards of a block in a step, over micro-batches and layers. A recomputed block
// has two forwards.
struct BlockRuns {
  double forwards = 0, backwards = 0;
};
BlockRuns block_runs(const config::Job& job, const NetworkPasses& passes = {});

// What a rank of `world` sends to sum the gradients, the most of any.
struct GradientTraffic {
  int64_t bytes = 0, messages = 0;
};
GradientTraffic gradient_traffic(int64_t parameters, int world);

}  // namespace sprocket::runtime
