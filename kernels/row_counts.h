// What the rows of a selection by count list, and where in a table. C++17; device code calls
// constexpr functions.
#pragma once

#include <cstdint>

#include "kernels/prefix_rule.h"

namespace sprocket::kernels {

// The call's first query blocks are of the prefix: so many.
constexpr int64_t prefix_rows_of(int64_t prefix_blocks, int64_t first_query_block,
                                 int64_t query_blocks) {
  const int64_t rows = prefix_blocks - first_query_block;
  return rows < 0 ? 0 : rows < query_blocks ? rows : query_blocks;
}

struct RowCounts {
  int64_t kv_blocks = 0;
  int64_t prefix_blocks = 0;
  int64_t k = 0;
  PrefixRule rule = PrefixRule::kExempt;
  int64_t query_blocks = 0;
  int64_t prefix_rows = 0;  // these list every block

  // What a video row lists before its selected ones, and how many it selects of the others.
  constexpr int64_t exempt() const { return rule == PrefixRule::kCompete ? 0 : prefix_blocks; }
  constexpr int64_t selected() const { return k + prefix_blocks - exempt(); }

  // Where row `row` of the call, counted over all heads, begins in the table.
  constexpr int64_t offset(int64_t row) const {
    const int64_t head = row / query_blocks, i = row % query_blocks;
    return head * offset_in_head(query_blocks) + offset_in_head(i);
  }

 private:
  constexpr int64_t offset_in_head(int64_t i) const {
    const int64_t before = i < prefix_rows ? i : prefix_rows;
    return before * kv_blocks + (i - before) * (k + prefix_blocks);
  }
};

}  // namespace sprocket::kernels
