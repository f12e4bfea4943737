// From block means to a SegmentTable by a threshold of each row: the two KV rules of BSA
// (Bidirectional Sparse Attention, arXiv 2509.01085).
//
//   S = scale * qc kc^T    every element a sum over D in one fixed order (coarse_scores)
//
// The scores are made and used in tiles of rows: memory is a tile per thread and the table, never
// query_blocks x kv_blocks x heads. A row's result depends neither on `threads` nor on which other
// query blocks a call holds. Ties go to the smaller block id; a NaN score counts as the smallest.
// Nothing here is differentiated.
#pragma once

#include <memory>

#include "base/decimal.h"
#include "kernels/import_budget.h"
#include "kernels/segment_table.h"
#include "kernels/threshold_rule.h"

namespace sprocket::kernels {

struct ThresholdSpec {
  ThresholdRule rule = ThresholdRule::kMass;
  Decimal sparsity;  // kValue, in [0, 1]
  double tau = 0.9;  // kMass, above 0
  // The best video blocks that are kept in any case; at least 1, at most N count.
  int min_blocks_value = 1;  // kValue
  int min_blocks = 4;        // kMass
  // Row i of a call is query block first_query_block + i. Blocks [0, prefix_blocks), of text and
  // the like, are selected by every row and take no part in statistics, mass and counts: N counts
  // the others. Rows of prefix query blocks select everything.
  int first_query_block = 0;
  int prefix_blocks = 0;
};

// The rule for rows of `blocks` video blocks, where counts are of `counted` ones: their number in
// the whole sequence.
ThresholdBounds threshold_bounds(const ThresholdSpec& spec, int counted, int blocks);

// The x with Phi(x) = p, Phi the standard normal distribution, to 1e-12 * max(1, |x|) for p in
// [1e-300, 0.999] (towards 1, where p is short of digits, use -x of 1 - p); -+infinity for 0 and 1.
// Peter J. Acklam's rational approximation ("An algorithm for computing the inverse normal
// cumulative distribution function", relative error 1.15e-9) and one step of Halley's method.
double inverse_normal_cdf(double p);

// qc: [batch * heads, query_blocks, head_dim], kc: [batch * heads, kv_blocks, head_dim],
// contiguous; 0 <= prefix_blocks <= kv_blocks.
template <class A>
SegmentTable select_by_threshold(const A* qc, const A* kc, int batch, int heads, int query_blocks,
                                 int kv_blocks, int head_dim, double scale,
                                 const ThresholdSpec& spec, int threads);
// The same with a budget; a row's shares are softmax(S) over the video blocks. `budget` must
// outlive the result.
template <class A>
std::unique_ptr<BudgetedSelection<A>> budgeted_selection(const A* qc, const A* kc, int batch,
                                                         int heads, int query_blocks, int kv_blocks,
                                                         int head_dim, double scale,
                                                         const ThresholdSpec& spec,
                                                         const DomainBudget& budget,
                                                         HeldDomains held, int threads);

}  // namespace sprocket::kernels
