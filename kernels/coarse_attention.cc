#include "kernels/coarse_attention.h"

#include "base/error.h"
#include "kernels/coarse_attention_tiles.h"

namespace sprocket::kernels {
namespace {

using internal::RowRule;
using internal::RowTile;
using internal::ScoreTiles;

// Calls body(tiles, selector, tile) for tiles that cover the call's rows, in parallel.
template <class A, class Body>
void for_each_tile(const CoarseProblem<A>& problem, bool selects, Body body) {
  const int64_t heads = static_cast<int64_t>(problem.batch) * problem.heads;
  const int64_t rows = internal::tile_rows(ScoreTiles<A>::row_bytes(problem, selects),
                                           heads * problem.query_blocks, problem.threads);
#pragma omp parallel num_threads(problem.threads)
  {
    ScoreTiles<A> tiles(problem);
    RowSelector<A> selector;
#pragma omp for collapse(2) schedule(dynamic)
    for (int64_t batch_head = 0; batch_head < heads; ++batch_head) {
      for (int64_t first = 0; first < problem.query_blocks; first += rows) {
        body(tiles, selector,
             RowTile{batch_head, first, std::min(rows, problem.query_blocks - first)});
      }
    }
  }
}

template <class A>
void attend_tile(const CoarseProblem<A>& problem, const RowTile& tile, A* scores, A* out) {
  internal::softmax_rows(scores, tile.rows, problem.kv_blocks);
  internal::multiply_values(problem, tile, scores, out);
}

}  // namespace

template <class A>
SegmentTable select_and_attend(const CoarseProblem<A>& problem, int k, A* out) {
  internal::check_selection(problem, k, out);

  SegmentTable table{problem.batch, problem.heads, problem.query_blocks, problem.kv_blocks, {}, {}};
  const RowRule rule(problem, k);
  const int64_t rows = table.rows(), n = problem.kv_blocks;
  table.row_offsets.assign(rows + 1, 0);
  for (int64_t row = 1; row <= rows; ++row) table.row_offsets[row] = rule.offset(row);
  table.kv_block.resize(table.row_offsets[rows]);
  for_each_tile(problem, true, [&](auto& tiles, auto& selector, const RowTile& tile) {
    A* scores = tiles.selection_scores(tile);
    for (int64_t i = 0; i < tile.rows; ++i) {
      const int64_t block = tile.first + i;
      const int64_t offset = table.row_offsets[tile.batch_head * problem.query_blocks + block];
      rule.select(scores + i * n, block, selector, table.kv_block.data() + offset);
    }
    if (out == nullptr) return;
    if (ScoreTiles<A>::has_sub_blocks(problem)) scores = tiles.scores(tile);
    attend_tile(problem, tile, scores, out);
  });
  return table;
}

template <class A>
void coarse_attend(const CoarseProblem<A>& problem, A* out) {
  internal::check_problem(problem);
  SPROCKET_CHECK(problem.vc != nullptr, "an output needs vc");
  for_each_tile(problem, false, [&](auto& tiles, auto&, const RowTile& tile) {
    attend_tile(problem, tile, tiles.scores(tile), out);
  });
}

template SegmentTable select_and_attend<float>(const CoarseProblem<float>&, int, float*);
template SegmentTable select_and_attend<double>(const CoarseProblem<double>&, int, double*);
template void coarse_attend<float>(const CoarseProblem<float>&, float*);
template void coarse_attend<double>(const CoarseProblem<double>&, double*);

}  // namespace sprocket::kernels
