// Exact top-k of block scores, and what the domain-and-budget rule (docs/attention.md) is made of;
// kernels/coarse_attention.h makes tables from them.
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

// Domains: contiguous ranges of block ids; domain g is [first_block[g], first_block[g + 1]), maybe
// empty. The selection of a domain's query blocks q with a budget, for scores S and P = softmax(S),
// for every sample of the batch by itself:
//   1. the k largest scores of every row;
//   2. a[h, j] = sum over q, ascending, of P[q, j] where q's row has selected j outside the domain;
//   3. imports: in every group of heads, the floor(max_coverage * heads * blocks outside) pairs
//      (h, j) of the largest a, ties to the smaller (h, j);
//   4. every row takes its k best among its own domain and the imports of its head, or all of these
//      where they are fewer.
// It is the same whatever subset of whole domains a call holds. With a max_coverage of 1 or a
// single domain that is not empty, it is the plain one.
struct DomainBudget {
  // [domains + 1], from 0 (or the first video block) to kv_blocks
  std::vector<int32_t> first_block;
  // Share of the (head, outside block) pairs that a domain may import.
  Decimal max_coverage;
  // Pairs compete inside groups of so many heads, a divisor of the call's heads; 0: all heads.
  int head_group = 0;
};

// A domain that a call holds: blocks [first, last), at least one.
struct Domain {
  int first = 0;
  int last = 0;
  int blocks() const { return last - first; }
};

// The domains among query blocks [first_query_block, first_query_block + query_blocks), which must
// be whole. Blocks in front of first_block[0] belong to no domain and are passed over.
std::vector<Domain> domains_of_call(const DomainBudget& budget, int first_query_block,
                                    int query_blocks, int kv_blocks);

// Heads of a group of the budget; checks that it divides `heads`.
int heads_of_group(const DomainBudget& budget, int heads);

}  // namespace sprocket::kernels
