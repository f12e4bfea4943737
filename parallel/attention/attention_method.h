// What a method decides and adds, on one outer shard, after Ulysses. Narrow interface 2.
//
// One object serves one call: prepare, then the fine stage over what it selected, then finish; in
// the backward finish_backward, the fine stage's backward, then add_gradients. Tensors are those of
// the outer shard: [B, L, H, D] with the heads of this Ulysses rank; accumulators are fp64 for fp64
// and fp32 otherwise. Functions marked collective are called by all ranks of the outer group.
#pragma once

#include <memory>
#include <vector>

#include <ATen/core/Tensor.h>

#include "parallel/attention/outer_strategy.h"
#include "parallel/sequence_attention.h"

namespace sprocket::parallel {

// Where a call is made.
struct MethodContext {
  const TokenLayout& layout;
  const OuterShards& blocks;  // query blocks over the outer ranks
  RankGroup group;            // the outer group
  int model_heads = 1;        // of all Ulysses ranks
  std::vector<int> heads;     // of the model, that the call's are
  int layer = 0;
  double scale = 1;
  int threads = 1;

  Timeline* timeline() const { return group.host.options().timeline; }
  int first_block() const { return blocks.blocks[blocks.self]; }
  int own_blocks() const { return blocks.blocks[blocks.self + 1] - first_block(); }
};

struct ShardTensors {
  at::Tensor q, k, v;
  at::Tensor coarse_gate, fine_gate;  // undefined where the method has none
};

// Accumulators for q, k and v, which start as 0; the gates' gradients in the compute dtype.
struct ShardGradients {
  at::Tensor dq, dk, dv;
  at::Tensor dcoarse_gate, dfine_gate;
};

class AttentionMethod {
 public:
  virtual ~AttentionMethod() = default;

  // Gathers what the method needs of other ranks. Returns the selection of the own query blocks:
  // `saved` if it is one, else a new one. Collective.
  virtual Selection prepare(const ShardTensors& tensors, const Selection& saved) = 0;

  // By head of the call, the executed (query block, KV block) pairs of the own query blocks: where
  // a part of a block's queries or keys is used, that part of a pair.
  virtual std::vector<kernels::Share> head_density(const Selection& selection) const;

  // Attends to keys that are not in the table, before the fine stage continues the output.
  virtual void attend_first(const QuerySide&, PassOutput&) {}

  // From the fine stage's output of every token (accumulator type) to the call's, in the compute
  // dtype.
  virtual at::Tensor finish(const at::Tensor& fine) = 0;

  // The gradient of `fine`, in the compute dtype.
  virtual at::Tensor finish_backward(const at::Tensor& dout, ShardGradients& gradients) = 0;

  // Adds what did not go through the fine stage's table. Collective.
  virtual void add_gradients(const QuerySide&, const OutputSide&, ShardGradients&) {}
};

// `context` refers to what outlives the method.
std::unique_ptr<AttentionMethod> make_method(const MethodContext& context,
                                             const AttentionSpec& spec);

// The methods, one file each.
std::unique_ptr<AttentionMethod> make_dense_method(const MethodContext& context);
std::unique_ptr<AttentionMethod> make_sliding_tile_method(const MethodContext& context,
                                                          const SlidingTileSpec& spec);
std::unique_ptr<AttentionMethod> make_vsa_method(const MethodContext& context, const VsaSpec& spec,
                                                 const BudgetSpec& budget);
std::unique_ptr<AttentionMethod> make_bsa_method(const MethodContext& context, const BsaSpec& spec,
                                                 const BudgetSpec& budget);
std::unique_ptr<AttentionMethod> make_psa_method(const MethodContext& context, const PsaSpec& spec,
                                                 const BudgetSpec& budget);
std::unique_ptr<AttentionMethod> make_asa_method(const MethodContext& context, const AsaSpec& spec,
                                                 const BudgetSpec& budget);

// A method whose output is the fine stage's.
class FineStageMethod : public AttentionMethod {
 public:
  at::Tensor finish(const at::Tensor& fine) override;
  at::Tensor finish_backward(const at::Tensor& dout, ShardGradients& gradients) override;

 protected:
  at::ScalarType dtype_ = at::kFloat;  // of the call's tensors; set in prepare
};

}  // namespace sprocket::parallel
