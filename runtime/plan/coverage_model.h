// How much crosses the network for the shards of every block order, and what a budget leaves.
//
// Shards are ranges of tokens, whatever the order, so a selection of the blocks of one order can be
// looked at under another one. Where a shard's border cuts a block, each side holds a part of its
// queries and keys.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/segment_table.h"
#include "parallel/token_layout.h"

namespace sprocket::runtime {

struct OrderCoverage {
  parallel::BlockOrder order;
  int ranks = 2;
  bool cuts_blocks = false;  // a border of its shards lies inside a block of the selection
  // Rows of other ranks that some query needs / all rows of other ranks, over ranks and heads.
  double coverage = 0;
  // By budget: selected pairs that are left when every rank imports at most this share of the
  // (head, row) pairs of other ranks, the most often selected first / all selected pairs.
  std::vector<double> kept;
};

// `table` selects blocks of `layout` (no pyramid, no prefix), sample 0.
std::vector<OrderCoverage> coverage_by_order(const parallel::TokenLayout& layout,
                                             const kernels::SegmentTable& table,
                                             const std::vector<int>& ranks,
                                             const std::vector<double>& budgets);

std::string name_of(parallel::BlockOrder order);

}  // namespace sprocket::runtime
