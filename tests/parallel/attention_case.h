// One attention problem and the sharded run of it that must equal the reference
// (method_reference.h).
#pragma once

#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "parallel/sequence_attention.h"

namespace sprocket::parallel::testing {

// What Q, K, V, gates and the output's gradient are made of.
struct InputSpec {
  double q_factor = 1;     // 16: logits of activation scale 16
  double correlation = 0;  // weight of a part that four adjacent tokens share, in q and k
  bool constant = false;   // q and k are the same everywhere: all scores tie
};

struct AttentionCase {
  TokenLayoutSpec layout{{5, 9, 6}, {4, 4, 4}, BlockOrder::kKd, 1};
  int batch = 2;
  int heads = 6;
  int head_dim = 8;
  AttentionSpec spec;
  StrategySpec strategy;
  MeshShape mesh;
  at::ScalarType dtype = at::kDouble;
  InputSpec inputs;
  int layer = 3;
  bool keep_lse = true;
  std::string label;  // of the options, where the method alone does not tell

  // What is computed, and the same with where it is computed.
  std::string problem() const;
  std::string name() const;
};

// [B, L, H, D], tokens in block order; gates and their gradients are undefined where the method has
// none.
struct AttentionTensors {
  at::Tensor q, k, v, dout;
  AttentionGates gates;
};
AttentionTensors make_inputs(const AttentionCase& c);

struct AttentionResult {
  at::Tensor out, lse, dq, dk, dv;  // lse: [B, L, H]
  AttentionGates dgates;
  AttentionStatistics statistics;
  Selection selection;
};

// This rank's part of the sharded computation, on the mesh's device; results are in host memory.
// Collective. The first form begins with an empty
// slot; the first two with a SequenceAttention that has made no call.
AttentionResult run_sharded(const AttentionCase& c, const AttentionTensors& inputs,
                            const Mesh& mesh);
AttentionResult run_sharded(const AttentionCase& c, const AttentionTensors& inputs,
                            const Mesh& mesh, AttentionSlot& slot);
AttentionResult run_sharded(const AttentionCase& c, const AttentionTensors& inputs,
                            const Mesh& mesh, SequenceAttention& attention, AttentionSlot& slot);

// Whether every tensor is bitwise the same, and the selection too.
bool bitwise_equal(const AttentionResult& a, const AttentionResult& b);

// The largest |difference| between the rank's result and its slice of the whole one.
double largest_difference(const AttentionResult& whole, const AttentionResult& part,
                          const ShardPlan& plan, int sequence_rank);

// One problem of every method: small options on a grid with partial cubes in every axis.
std::vector<AttentionCase> method_cases();

// The same with a prefix where those have none, and without where they have one.
std::vector<AttentionCase> other_prefix_cases();

// Every strategy and mesh that is legal for `ranks`, for every method.
std::vector<AttentionCase> parity_cases(int ranks);

}  // namespace sprocket::parallel::testing
