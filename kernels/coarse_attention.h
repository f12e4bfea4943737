// Coarse attention over block means, and the selection that its scores make (VSA, arXiv 2505.13389;
// prefix blocks as in VSA-H3), as one stream over query rows.
//
//   S = scale * qc kc^T,   out = softmax(S) vc over all blocks,   selection from S or from
//   S'[i, j] = log sum_ab exp(scale * q_sub[i, a] . k_sub[j, b])                      (`subblock`)
//
// Means, outputs and gradients are contiguous [batch * heads, blocks, head_dim] of A, which is
// float or double. A tile of query rows goes through scores, selection, softmax and product before
// the next one is begun; no array of query_blocks * kv_blocks exists. Each thread holds what it
// keeps of a tile in at most kCoarseTileBytes, or what one row needs where that is more, and
// besides one panel of panel_product: 128 bytes per block.
//
// Every score is one chain of multiply-adds over ascending d, and the sums of softmax and product
// have an order that depends on kv_blocks alone. So results are bitwise the same for any number of
// threads, for any subset of query blocks (with a budget: of whole domains) that a call holds, and
// for a call that does not select. Nothing is asynchronous. A broken precondition is InternalError.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "kernels/import_budget.h"
#include "kernels/prefix_rule.h"
#include "kernels/segment_table.h"

namespace sprocket::kernels {

inline constexpr size_t kCoarseTileBytes = size_t{1} << 20;

// Means of equal pieces of each block, as pool_sub_blocks makes them. Null means: the block means.
template <class A>
struct SubBlocks {
  int parts = 1;
  const A* means = nullptr;         // [batch * heads, blocks, parts, head_dim]
  std::span<const int32_t> counts;  // [blocks] pieces that are not empty; they come first
};

template <class A>
struct CoarseProblem {
  int batch = 0;
  int heads = 0;
  int query_blocks = 0;  // held by this call
  int kv_blocks = 0;     // all of them, prefix included
  int head_dim = 0;
  double scale = 1;
  const A* qc = nullptr;  // [batch * heads, query_blocks, head_dim]
  const A* kc = nullptr;  // [batch * heads, kv_blocks, head_dim]
  const A* vc = nullptr;  // likewise; may be null where no output is asked for
  // Score `subblock`, of the selection only. With means on one side, the other side's block means
  // are its single pieces; with none, the selection takes S.
  SubBlocks<A> q_sub, k_sub;
  int first_query_block = 0;  // id of the call's first query block
  int prefix_blocks = 0;
  PrefixRule prefix_rule = PrefixRule::kExempt;
  int threads = 1;
};

// The table of the call's query blocks: k video blocks for every video query block, 1 <= k <=
// kv_blocks - prefix_blocks where the call holds one. out, if not null: [batch * heads,
// query_blocks, head_dim], overwritten.
template <class A>
SegmentTable select_and_attend(const CoarseProblem<A>& problem, int k, A* out);

// The same with a budget (import_budget.h), where P = softmax(S) of the block means under both
// scores; masses() writes out. With kCompete the prefix blocks are candidates too. A row that finds
// fewer than its count takes all of them. Scores are computed twice; kept between the steps are the
// masses alone. Both arguments must outlive the result.
template <class A>
std::unique_ptr<BudgetedSelection<A>> budgeted_selection(const CoarseProblem<A>& problem, int k,
                                                         const DomainBudget& budget,
                                                         HeldDomains held, A* out);

// The same output without a selection; q_sub and k_sub are not looked at.
template <class A>
void coarse_attend(const CoarseProblem<A>& problem, A* out);

// Gradients of coarse_attend for dout [batch * heads, query_blocks, head_dim]. Overwrites dqc, and
// dkc and dvc with the sums over the call's query blocks.
template <class A>
void coarse_attend_backward(const CoarseProblem<A>& problem, const A* dout, A* dqc, A* dkc, A* dvc);

}  // namespace sprocket::kernels
