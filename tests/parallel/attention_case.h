// One attention problem, its independent reference, and the sharded run that must equal it.
#pragma once

#include <string>

#include <ATen/core/Tensor.h>

#include "parallel/sequence_attention.h"

namespace sprocket::parallel::testing {

struct AttentionCase {
  TokenLayoutSpec layout{{5, 9, 6}, {4, 4, 4}, BlockOrder::kKd, 1};
  int batch = 2;
  int heads = 6;
  int head_dim = 8;
  AttentionSpec spec;
  StrategySpec strategy;
  MeshShape mesh;
  at::ScalarType dtype = at::kDouble;

  bool gated() const { return spec.coarse_gated(); }
  std::string name() const;
};

// [B, L, H, D], tokens in block order; gate and dgate are undefined without a gate.
struct AttentionTensors {
  at::Tensor q, k, v, gate, dout;
};
AttentionTensors make_inputs(const AttentionCase& c);

struct AttentionResult {
  at::Tensor out, dq, dk, dv, dgate;
  AttentionStatistics statistics;
  std::shared_ptr<const kernels::SegmentTable> table;  // of the rank's query blocks
};

// Explicit masks, plain tensor operations and LibTorch's own autograd, in fp64, on the whole
// sequence.
AttentionResult reference(const AttentionCase& c, const AttentionTensors& inputs);

// This rank's part of the sharded computation. Collective.
AttentionResult run_sharded(const AttentionCase& c, const AttentionTensors& inputs,
                            const Mesh& mesh);

// The largest |difference| between the rank's result and its slice of the whole one.
double largest_difference(const AttentionResult& whole, const AttentionResult& part,
                          const ShardPlan& plan, int sequence_rank);

// Runs the case on `world` and checks this rank's slice; throws std::runtime_error when it is off.
void check_case(const AttentionCase& c, const AttentionTensors& inputs,
                const AttentionResult& whole, comm::Communicator& world, double tolerance);

// Every strategy and mesh that is legal for `ranks`, dense and VSA with and without a budget.
std::vector<AttentionCase> parity_cases(int ranks);

}  // namespace sprocket::parallel::testing
