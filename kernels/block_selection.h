// From block scores to a SegmentTable: exact top-k, and the domain-and-budget rule
// (docs/attention.md).
//
// Ties go to the smaller block id (+0 and -0 tie). A NaN score, of a model that has diverged,
// counts as the smallest one, so that every rank still derives the same table and the loss reports
// the NaN. Nothing here is differentiated.
#pragma once

#include <cstdint>
#include <type_traits>
#include <vector>

#include "base/decimal.h"
#include "kernels/aligned_buffer.h"
#include "kernels/segment_table.h"

namespace sprocket::kernels {

// k = clamp(ceil((1 - sparsity) * blocks), 1, blocks), in exact decimal arithmetic; 0 for no
// blocks.
int selected_count(const Decimal& sparsity, int blocks);

// Finds the largest scores of a row. One object serves one thread.
template <class A>
class RowSelector {
 public:
  // Writes the positions of the `count` largest of `size` scores, ascending; 0 <= count <= size.
  void select(const A* scores, int64_t size, int64_t count, int32_t* positions);

 private:
  AlignedBuffer<std::conditional_t<sizeof(A) == 4, int32_t, int64_t>> keys_;
};

// Row by row, the k largest scores. scores: [batch * heads, query_blocks, kv_blocks] contiguous.
// 1 <= k <= kv_blocks, unless there are no rows.
template <class A>
SegmentTable select_top_k(const A* scores, int batch, int heads, int query_blocks, int kv_blocks,
                          int k, int threads);

// Domains: contiguous ranges of block ids; domain g is [first_block[g], first_block[g + 1]), maybe
// empty.
struct DomainBudget {
  std::vector<int32_t>
      first_block;       // [domains + 1], from 0 (or the first video block) to kv_blocks
  Decimal max_coverage;  // share of the remote (head, block) pairs a domain may import
  int head_group = 0;    // pairs compete inside groups of so many heads, a divisor of the
                         // call's heads; 0: all heads
};

// A domain that a call holds: blocks [first, last), at least one.
struct Domain {
  int first = 0;
  int last = 0;
  int blocks() const { return last - first; }
  bool holds(int block) const { return block >= first && block < last; }
};

// The domains among query blocks [first_query_block, first_query_block + query_blocks), which must
// be whole. Blocks in front of first_block[0] belong to no domain and are passed over.
std::vector<Domain> domains_of_call(const DomainBudget& budget, int first_query_block,
                                    int query_blocks, int kv_blocks);

// Heads of a group of the budget; checks that it divides `heads`.
int heads_of_group(const DomainBudget& budget, int heads);

// The budgeted selection of query blocks [first_query_block, first_query_block + query_blocks),
// which must be whole domains; for every sample of the batch by itself:
//   1. unbudgeted top k per row;
//   2. a[h, j] = sum over the domain's query blocks (ascending) of P[q, j] over their selected
//   remote j;
//   3. import set: the floor(max_coverage * group heads * remote blocks) largest pairs, ties to
//      the smaller (h, j);
//   4. each row takes its k best among its own domain and the imports of its head (all of them
//   where
//      they are fewer than k).
// probabilities: softmax of scores, same shape. The same result whatever subset of whole domains a
// call holds. max_coverage 1, or one domain that is not empty, is select_top_k.
template <class A>
SegmentTable select_with_budget(const A* scores, const A* probabilities, int batch, int heads,
                                int first_query_block, int query_blocks, int kv_blocks, int k,
                                const DomainBudget& budget, int threads);

}  // namespace sprocket::kernels
