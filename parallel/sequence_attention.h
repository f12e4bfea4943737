// Self-attention over a sharded video sequence: method x strategy, forward and backward.
//
// The one entry that models use. Q, K, V of a rank's own tokens go in, the attention output of the
// same tokens comes out; everything between (Ulysses all-to-all, pooling, selection, KV exchange)
// happens inside, differentiably.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "base/decimal.h"
#include "kernels/segment_table.h"
#include "parallel/mesh.h"
#include "parallel/token_layout.h"

namespace sprocket::parallel {

enum class MethodKind { kDense, kVsa };
enum class CoarseBranch { kGated, kAdd, kNone };
enum class OuterStrategyKind { kAllGather, kRing, kSelected };

// What is computed: a property of the model, the same on any number of ranks.
struct AttentionSpec {
  MethodKind method = MethodKind::kDense;
  CoarseBranch coarse = CoarseBranch::kGated;   // VSA
  Decimal sparsity;                             // VSA; of this step, 0 selects everything
  Decimal max_coverage = Decimal::ratio(1, 0);  // of this step; needs domains > 1 to matter
  int budget_head_group = 0;                    // 0: all heads
};

// How it is computed on this mesh.
struct StrategySpec {
  OuterStrategyKind outer = OuterStrategyKind::kSelected;
  bool keep_remote_kv = true;  // false: the backward fetches remote K and V again
  int threads = 1;
};

struct AttentionStatistics {
  double density = 1;          // selected pairs / all pairs, of this rank's query blocks
  double coverage = 0;         // needed remote (head, block) pairs / all remote pairs
  int64_t selected_pairs = 0;  // (head, query block, KV block) pairs of this rank
};

// A layer's memory between forward, recomputation and backward of one micro-batch. A selection is
// made once: a second forward with the same slot (activation recomputation) reuses it.
class AttentionSlot {
 public:
  void clear() { table.reset(); }
  std::shared_ptr<const kernels::SegmentTable> table;
  AttentionStatistics statistics;
};

class SequenceAttention {
 public:
  // Lives as long as the graphs made with it. `mesh` must outlive it.
  SequenceAttention(const Mesh& mesh, TokenLayout layout, const StrategySpec& strategy);
  ~SequenceAttention();

  // q, k, v: [B, L_rank, H, D], fp64, fp32 or bf16, tokens in block order, all H heads; H must be a
  // multiple of the Ulysses degree. gate: same shape, for VSA with the gated coarse branch,
  // otherwise undefined. Returns [B, L_rank, H, D] in the same dtype. Collective over the sequence
  // group, in forward and, in reverse order, in backward.
  at::Tensor forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                     const at::Tensor& gate, const AttentionSpec& spec, AttentionSlot& slot);

  const TokenLayout& layout() const;
  const ShardPlan& shards() const;

  class Context;  // of the implementation

 private:
  std::shared_ptr<Context> context_;
};

}  // namespace sprocket::parallel
