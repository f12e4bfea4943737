#include "runtime/plan/step_cost.h"

#include <algorithm>

#include "base/error.h"
#include "parallel/comm/operation_traffic.h"
#include "runtime/plan/flops.h"
#include "runtime/plan/job_specs.h"
#include "runtime/plan/memory_estimate.h"

namespace sprocket::runtime {
namespace {

constexpr double kFloat = 4;

int64_t micro_batches(const config::Job& job) {
  return job.training().global_batch() /
         (int64_t{job.training().micro_batch()} * job.parallel().data());
}

// Bytes that the norms, residuals and the activation of one block read and write in a forward.
double elementwise_bytes(const config::Job& job, double rows) {
  const double e = static_cast<double>(size_of(compute_dtype(job)));
  const double dim = job.model().dim(), ffn = job.model().ffn_dim();
  const double layer_norm = kFloat + e, residual = 2 * kFloat + e, activation = ffn * 2 * e;
  switch (job.model().family()) {
    case config::Model::WAN: {
      const double head_norms = 3 * 2 * e;  // q, k and the cross-attention's q
      return rows * (dim * (3 * layer_norm + 3 * residual + head_norms) + activation);
    }
    case config::Model::COGVIDEOX: {
      // q and k are converted, normed and turned, each in a pass of its own in fp32; the rows of
      // text and video are put together and taken apart.
      const double head_norms = 2 * (2 * e + 4 * kFloat), copies = 2 * 2 * (kFloat + e);
      return rows * (dim * (2 * layer_norm + 2 * residual + head_norms + copies) + activation);
    }
  }
  throw InternalError("model.family has no counterpart");
}

// Every rank sends its part of the sum to all others and gets theirs: two exchanges, each with a
// message for every other rank.
double gradient_sum_seconds(const ClusterModel& cluster, double bytes, int world) {
  if (world == 1) return 0;
  const double part = bytes / world;
  Flow rank, node;
  const int inside = std::min(cluster.devices, world) - 1, between = world - 1 - inside;
  rank.add_sent(LinkClass::kInsideNode, part * inside, inside);
  rank.add_sent(LinkClass::kBetweenNodes, part * between, between);
  rank.received = rank.sent;
  for (int which = 0; which < kLinkClasses; ++which) {
    node.sent[which] = node.received[which] = rank.sent[which] * cluster.devices;
  }
  // The sum reads the parts of all ranks and writes the own one.
  const double sum = (bytes + part) / (2 * cluster.device.copy);
  return 2 * transfer_time(cluster, rank, node).seconds + sum;
}

}  // namespace

BlockRuns block_runs(const config::Job& job, const NetworkPasses& passes) {
  const auto blocks = static_cast<double>(micro_batches(job) * job.model().layers());
  const bool again = job.training().activation_checkpointing() == config::Training::BLOCK;
  return {blocks * (passes.plain + (again ? 2 : 1) * passes.with_graph),
          blocks * passes.with_graph};
}

GradientTraffic gradient_traffic(int64_t parameters, int world) {
  const comm::OperationTraffic traffic =
      comm::all_reduce_traffic(world - 1, world, parameters, sizeof(float));
  return {traffic.bytes_sent, traffic.messages_sent};
}

StepCost step_cost(const config::Job& job, const ClusterModel& cluster,
                   const AttentionCost& attention, int64_t own_tokens,
                   const NetworkPasses& passes) {
  const DeviceModel& device = cluster.device;
  const auto batch = static_cast<double>(job.training().micro_batch());
  const auto tokens = static_cast<double>(own_tokens);
  const ForwardFlops flops = forward_flops(job, tokens);
  const double elementwise = elementwise_bytes(job, batch * tokens) / (2 * device.copy);
  const double forward = batch * flops.block_linear / device.linear +
                         batch * flops.block_cross_attention / device.attention_forward +
                         elementwise;
  // Two products for one, without those for weights that are frozen; five for two in attention.
  const int products = job.training().lora().rank() > 0 ? 1 : 2;
  const double backward = batch * products * flops.block_linear / device.linear +
                          batch * 2.5 * flops.block_cross_attention / device.attention_backward +
                          2 * elementwise;
  StepCost cost;
  cost.layer_forward = forward + attention.forward.seconds();
  cost.layer_backward = backward + attention.backward.seconds();

  const BlockRuns runs = block_runs(job, passes);
  const double edges = static_cast<double>(micro_batches(job)) * batch * flops.edges /
                       device.linear * (passes.plain + (1 + products) * passes.with_graph);
  const auto parameters = static_cast<double>(trained_count(job));
  const int world = job.parallel().data() * job.parallel().outer() * job.parallel().ulysses();
  cost.gradient_sum = passes.updates * gradient_sum_seconds(cluster, kFloat * parameters, world);
  // Gradients are zeroed, their norm is taken, and the update reads four arrays and writes three.
  cost.optimizer = passes.updates * kFloat * parameters * (1 + 1 + 7) / (2 * device.copy);
  cost.exposed = runs.forwards * attention.forward.exposed +
                 runs.backwards * attention.backward.exposed + cost.gradient_sum;
  cost.seconds = runs.forwards * cost.layer_forward + runs.backwards * cost.layer_backward + edges +
                 cost.gradient_sum + cost.optimizer;
  return cost;
}

}  // namespace sprocket::runtime
