// Bytes and messages that one attention layer sends, in closed form, without running it.
//
// The formulas are those of docs/sequence_parallel.md for uneven shards: with u = bytes of one
// rank's share of one of Q, K, V, O and even shards they reduce to
//   Ulysses     4u(U-1)/U forward and backward, 5u(U-1)/U with a gate
//   ring        2(R-1)u forward; 2(R-1)u + 2R u a/e backward (a bytes of an accumulator, e of an
//   element) all_gather  2(R-1)u forward; 2(R-1)u backward, 4(R-1)u when K and V are fetched again
//   selected    2c(R-1)u forward; the same backward, 4c(R-1)u when K and V are fetched again
// (with PSA, u is that of the pyramid's rows) plus what the method gathers to select by, the
// gradients of what it attends to in that form, and, with selected, the need bitmaps. Tests hold
// them against what the communicators counted, exactly.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "base/timeline.h"
#include "parallel/attention/selected_plan.h"
#include "parallel/comm/recorder.h"
#include "parallel/sequence_attention.h"

namespace sprocket::parallel {

struct TrafficRow {
  std::string group;  // communicator: "sp.ulysses", "sp.outer" or, what nobody waits for, "sp"
  std::string what;   // "q, k, v", "selected k, v", "pooled k, v", "need bitmaps", …
  comm::OpKind op;
  Phase phase;        // kForward or kBackward
  int64_t bytes = 0;  // sent by this rank to others
  int64_t messages = 0;
  std::vector<int64_t> bytes_to = {};  // [group size] of them, by peer; a ring's over all its steps
};

struct AttentionShape {
  int64_t batch = 1;
  int64_t heads = 1;
  int64_t head_dim = 64;
  DType dtype = DType::kF32;
  AttentionSpec spec;
};

// K rows (one head each) that cross the network for the selected strategy, by peer.
struct SelectedRows {
  std::vector<int64_t> sent, received;
  // Groups of heads (fetch_groups) that have rows for the peer; empty: all of them have.
  std::vector<int64_t> groups_sent, groups_received;
  bool gathered = false;  // the layer gathered everything instead (StrategySpec::gather_above)
};
// Of the plans of all groups.
SelectedRows rows_of(std::span<const SelectedPlan> groups);

// The most that a budget allows: every domain of a rank imports its full budget of different pairs,
// the largest blocks first, and with the tree form every node above it; without a budget,
// everything. `received` bounds the sum over peers, `sent` each peer's part. For video queries:
// what prefix queries fetch with StrategySpec::single_pass comes on top.
SelectedRows selected_rows_bound(const TokenLayout& layout, const OuterShards& segments,
                                 int64_t batch, int64_t heads_here, const AttentionSpec& spec);

// One layer's rows for a sequence rank (outer index * ulysses degree + ulysses index).
std::vector<TrafficRow> attention_traffic(const TokenLayout& layout, const ShardPlan& plan,
                                          int sequence_rank, const AttentionShape& shape,
                                          const StrategySpec& strategy,
                                          const SelectedRows& selected);

// The outer shards as rank `outer_index` sees them: of blocks, and of the KV segments that tables
// of a method refer to (key_shards.h).
OuterShards outer_shards(const TokenLayout& layout, const ShardPlan& plan, int outer_index);
OuterShards key_segments(const TokenLayout& layout, const ShardPlan& plan, int outer_index,
                         const AttentionSpec& spec);

}  // namespace sprocket::parallel
