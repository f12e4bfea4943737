// From block scores to a SegmentTable: exact top-k, and the domain-and-budget rule.
//
// Ties go to the smaller block id. Nothing here is differentiated.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/decimal.h"
#include "kernels/segment_table.h"

namespace sprocket::kernels {

// k = clamp(ceil((1 - sparsity) * blocks), 1, blocks), in exact decimal arithmetic.
int selected_count(const Decimal& sparsity, int blocks);

// Row by row, the k largest scores. scores: [batch * heads, query_blocks, kv_blocks] contiguous.
template <class A>
SegmentTable select_top_k(const A* scores, int batch, int heads, int query_blocks, int kv_blocks,
                          int k, int threads);

// Domains: contiguous ranges of block ids; domain g is [first_block[g], first_block[g + 1]).
struct DomainBudget {
  std::vector<int32_t> first_block;   // [domains + 1]
  Decimal max_coverage;               // share of the remote (head, block) pairs a domain may import
  int head_group = 0;                 // pairs compete inside groups of so many heads; 0: all heads
};

// The budgeted selection of query blocks [first_query_block, first_query_block + query_blocks), which
// must be whole domains:
//   1. unbudgeted top k per row;
//   2. a[h, j] = sum over the domain's query blocks (ascending) of P[q, j] over their selected remote j;
//   3. import set: the floor(max_coverage * group heads * remote blocks) largest pairs, ties to
//      the smaller (h, j);
//   4. each row takes its k best among its own domain and the imports of its head.
// probabilities: softmax of scores, same shape. The same result whatever subset of domains a call has.
template <class A>
SegmentTable select_with_budget(const A* scores, const A* probabilities, int batch, int heads,
                                int first_query_block, int query_blocks, int kv_blocks, int k,
                                const DomainBudget& budget, int threads);

}  // namespace sprocket::kernels
