// Attention of some heads over one outer shard, after Ulysses: method x outer strategy.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "parallel/attention/attention_method.h"
#include "parallel/attention/key_shards.h"
#include "parallel/attention/prefix_branch.h"
#include "parallel/attention/pruned_queries.h"

namespace sprocket::parallel {

// The KV rows of one pyramid and the strategy that moves them.
struct KeySide {
  KeyShards keys;
  std::unique_ptr<OuterStrategy> outer;
};

// What all calls on a mesh share.
class ShardContext {
 public:
  ShardContext(const Mesh& mesh, TokenLayout layout, const StrategySpec& strategy);

  // Made at the first use of its widths.
  KeySide& key_side(const std::vector<int>& widths);
  bool has_prefix_branch() const { return layout.prefix_blocks() > 0 && blocks.ranks() > 1; }
  int own_prefix_blocks() const;

  const Mesh& mesh;
  TokenLayout layout;
  ShardPlan plan;
  StrategySpec strategy;
  Timeline* timeline;
  OuterShards blocks;

 private:
  std::map<std::vector<int>, KeySide> key_sides_;
};

// One call: forward once, then backward at most once.
class ShardAttention {
 public:
  // `context` must outlive it. heads: of the model, that those of the inputs are.
  ShardAttention(ShardContext& context, const AttentionSpec& spec, std::vector<int> heads,
                 int model_heads, int layer);

  struct Outcome {
    at::Tensor out;  // [B, L, H, D]
    at::Tensor lse;  // [B, L, H], accumulator type; undefined unless asked for
    Selection selection;
    AttentionStatistics statistics;
  };
  // Collective over the outer group, like backward. saved: a selection to use, or an empty one.
  Outcome forward(const ShardTensors& inputs, const Selection& saved, bool keep_lse);
  // Gradients of q, k, v and of the gates there are.
  std::vector<at::Tensor> backward(const at::Tensor& dout);

 private:
  // Rows that the outer strategy moves or leaves: those of the own video tokens.
  at::Tensor video_rows(const at::Tensor& x_BLHD) const;
  bool merges_prefix() const { return prefix_ && !context_.strategy.single_pass; }

  ShardContext& context_;
  AttentionSpec spec_;
  std::vector<int> heads_;
  int model_heads_, layer_;
  std::unique_ptr<AttentionMethod> method_;
  KeySide& key_side_;
  Selection selection_;
  std::optional<PrunedQueries> pruned_;   // of the selection, where there is a pruning
  std::unique_ptr<PrefixBranch> prefix_;  // null: no prefix, or one outer rank
  OuterCall call_;                        // the query side (kept queries only), the own KV rows
  PassOutput fine_;                       // of the query side
  std::unique_ptr<OuterStrategy::Memory> memory_;
};

}  // namespace sprocket::parallel
