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

#include "kernels/import_budget.h"
#include "kernels/query_pruning.h"
#include "kernels/segment_table.h"
#include "parallel/attention_spec.h"
#include "parallel/mesh.h"
#include "parallel/token_layout.h"

namespace sprocket::parallel {

enum class OuterStrategyKind { kAllGather, kRing, kSelected };

// How it is computed on this mesh.
struct StrategySpec {
  OuterStrategyKind outer = OuterStrategyKind::kSelected;
  bool keep_remote_kv = true;  // false: the backward fetches remote K and V again
  int threads = 1;
  // Messages travel while kernels compute. The same bits either way.
  bool overlap = true;
  // kSelected, kAllGather: wait for all keys and attend to them in one pass in block order. Output,
  // LSE and dQ then have the bits of one rank; nothing travels meanwhile.
  bool single_pass = false;
  // kSelected, kAllGather: gradients of remote K and V travel in the accumulator type.
  bool wide_gradients = false;
  // kSelected: where the ranks together need more than this share of the remote rows, a layer
  // gathers everything instead. The same bits either way.
  double gather_above = 0.95;
  // In how many groups a rank's heads move, so that one travels while another is worked on: those
  // of pure Ulysses (0: two where the heads allow it), what kSelected fetches (0: four). The same
  // bits for any number.
  int head_groups = 0;
  // Ulysses: methods whose heads differ in work place them on the ranks by what they cost in the
  // layer's call before (head_balance.h). The same bits either way.
  bool balance_heads = true;
};

struct AttentionStatistics {
  double density = 1;          // selected pairs / all pairs, of this rank's query blocks
  double coverage = 0;         // needed remote (head, block) pairs / all remote pairs
  int64_t selected_pairs = 0;  // (head, query block, KV block) pairs of this rank
  // By head of the model, 0 for those of other Ulysses ranks; ranks and calls add up.
  // (query row, key row) pairs that the fine stage computes (executed_pairs.h).
  std::vector<int64_t> pairs;
  // Selected and all (query block, KV block) pairs, where the method uses a part of a block's
  // queries or keys that part of a pair; and needed and all remote blocks, none on one outer rank.
  // The shares of their sums over the heads are density and coverage.
  std::vector<kernels::Share> head_density, head_coverage;
  // What `coverage` would be if every domain were a rank: the same on one rank and on many; prefix
  // blocks are not counted. Empty where there is one domain.
  std::vector<kernels::Share> domain_coverage;
  // Of the mass that would be selected without a budget, what lies on blocks that the budget
  // allows. Empty where no budget was applied or the selection was given.
  std::vector<kernels::Share> kept_mass;
};

// What a method decided for the query blocks of an outer rank and the heads of a Ulysses rank.
struct Selection {
  std::shared_ptr<const kernels::SegmentTable> table;         // query block -> KV segments
  std::shared_ptr<const kernels::QueryPruning> pruning;       // BSA; null: every query attends
  std::shared_ptr<const kernels::SegmentTable> global_table;  // ASA; query block -> global tokens
  // Mass by head that the budget left, of what would be selected without it; may be empty.
  std::vector<kernels::Share> kept_mass;
  // The model's heads in the order in which the Ulysses ranks hold them: rank u has an equal part,
  // the u-th. Tables and lists above are in this order. The same on all ranks; empty: 0, 1, 2, ….
  std::vector<int> head_order;
};

// Gates of VSA's branches; undefined where the method has none (AttentionSpec::coarse_gated,
// fine_gated). Shaped like q.
struct AttentionGates {
  at::Tensor coarse, fine;
};

// What a forward was called with, detached.
struct AttentionInputs {
  at::Tensor q, k, v;
  AttentionGates gates;
};

// A layer's memory between forward, recomputation and backward of one micro-batch. A selection is
// made once: a second forward with the same slot (activation recomputation) reuses it.
class AttentionSlot {
 public:
  void clear() { selection = {}; }
  int layer = 0;             // tokens are sampled by it
  bool keep_lse = false;     // fill `lse`
  bool keep_inputs = false;  // fill `inputs`
  Selection selection;
  AttentionStatistics statistics;
  at::Tensor lse;  // of the last forward: [B, L_rank, H], accumulator type, natural logarithm
  AttentionInputs inputs;  // of the last forward, sharing its memory
};

// The groups that a call of `heads` heads is made in; 1 unless Ulysses is the only sequence axis.
int head_groups(const StrategySpec& strategy, const MeshShape& mesh, const AttentionSpec& spec,
                int64_t heads);

// Whether calls of `heads` heads gather what the heads cost and place them by it.
bool balances_heads(const StrategySpec& strategy, const MeshShape& mesh, const AttentionSpec& spec,
                    int64_t heads);

class SequenceAttention {
 public:
  // Lives as long as the graphs made with it. `mesh` must outlive it.
  SequenceAttention(const Mesh& mesh, TokenLayout layout, const StrategySpec& strategy);
  ~SequenceAttention();

  // q, k, v: [B, L_rank, H, D], fp64, fp32 or bf16, tokens in block order, all H heads; H must be a
  // multiple of the Ulysses degree. Returns [B, L_rank, H, D] in the same dtype. Collective over
  // the sequence group, in forward and, in reverse order, in backward.
  at::Tensor forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                     const AttentionGates& gates, const AttentionSpec& spec, AttentionSlot& slot);

  // Waits for what forwards left under way, which no result needs: costs of heads. An error that
  // all ranks throw together ends in peace only after that. Hardly waits after a backward.
  void settle();

  const TokenLayout& layout() const;
  const ShardPlan& shards() const;

  class Context;  // of the implementation

 private:
  std::shared_ptr<Context> context_;
};

}  // namespace sprocket::parallel
