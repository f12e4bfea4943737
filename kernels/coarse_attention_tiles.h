// What the coarse attention keeps of one tile of query rows; internal to kernels/coarse_attention*.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "kernels/aligned_buffer.h"
#include "kernels/block_selection.h"
#include "kernels/coarse_attention.h"
#include "kernels/row_counts.h"

namespace sprocket::kernels::internal {

struct RowTile {
  int64_t batch_head = 0;
  int64_t first = 0;  // of the call's query blocks
  int64_t rows = 0;
};

// More rows gain nothing: panel_product packs once for so many.
inline constexpr int64_t kMostTileRows = 192;

// Rows of a tile that keeps `bytes` of each row.
inline int64_t tile_rows(size_t bytes) {
  return std::clamp<int64_t>(kCoarseTileBytes / std::max<size_t>(bytes, 1), 1, kMostTileRows);
}
// Maybe fewer, so that `all_rows` rows feed the threads.
inline int64_t tile_rows(size_t bytes, int64_t all_rows, int threads) {
  constexpr int64_t kFewRows = 16;
  return std::min(tile_rows(bytes), std::max(all_rows / (4 * threads), kFewRows));
}

// Scores of tiles, for one thread.
template <class A>
class ScoreTiles {
 public:
  explicit ScoreTiles(const CoarseProblem<A>& problem);

  static bool has_sub_blocks(const CoarseProblem<A>& problem) {
    return problem.q_sub.means != nullptr || problem.k_sub.means != nullptr;
  }
  // Kept of a row, with or without what the score `subblock` needs.
  static size_t row_bytes(const CoarseProblem<A>& problem, bool selects);

  // [rows, kv_blocks] scores of the block means, the caller's to change until the next call.
  A* scores(const RowTile& tile);
  // Likewise the scores that select. The block means' own ones live where scores() puts them.
  A* selection_scores(const RowTile& tile);

 private:
  void drop_empty_parts(int64_t raw_rows);

  const CoarseProblem<A>& problem_;
  SubBlocks<A> q_sub_, k_sub_;
  std::vector<int32_t> partial_;  // KV blocks with empty parts
  AlignedBuffer<A> scores_, selection_, raw_;
};

// out[tile's rows] = probabilities [rows, kv_blocks] times vc
template <class A>
void multiply_values(const CoarseProblem<A>& problem, const RowTile& tile, const A* probabilities,
                     A* out);

// Rows of scores become probabilities.
template <class A>
void softmax_rows(A* scores, int64_t rows, int64_t kv_blocks);

// Sizes, pointers and pieces of a problem.
template <class A>
void check_problem(const CoarseProblem<A>& problem);

// What rows list.
struct RowRule : RowCounts {
  template <class A>
  RowRule(const CoarseProblem<A>& problem, int k)
      : RowCounts{problem.kv_blocks,
                  problem.prefix_blocks,
                  k,
                  problem.prefix_rule,
                  problem.query_blocks,
                  prefix_rows_of(problem.prefix_blocks, problem.first_query_block,
                                 problem.query_blocks)} {}

  // The row's ids, ascending; offset(row + 1) - offset(row) of them.
  template <class A>
  void select(const A* scores, int64_t query_block, RowSelector<A>& selector, int32_t* ids) const;
};

// Sizes, pointers and counts of a call that selects; `out` may be null.
template <class A>
void check_selection(const CoarseProblem<A>& problem, int k, const A* out);

}  // namespace sprocket::kernels::internal
