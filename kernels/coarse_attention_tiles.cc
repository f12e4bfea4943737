#include "kernels/coarse_attention_tiles.h"

#include <cmath>
#include <limits>
#include <numeric>

#include "base/error.h"
#include "kernels/coarse_attention_rows.h"
#include "kernels/panel_product.h"

namespace sprocket::kernels::internal {
namespace {

// sums and shifts of log-sum-exp over parts: raw is [k_parts][raw rows][kv_blocks], part_stride
// apart; the block's q_parts rows lie one after the other. Parts that are empty hold -inf.
template <class A>
struct PartSumKernel {
  SPROCKET_INLINE static Lanes<A> load_some(const A* from, int64_t count) {
    return count == kLanes<A> ? load(from) : load_first(from, count);
  }
  SPROCKET_INLINE static void run(const A* raw, int64_t part_stride, int64_t q_parts,
                                  int64_t k_parts, int64_t kv_blocks, A* shifts, A* sums) {
    const Lanes<A> lowest = broadcast(-std::numeric_limits<A>::infinity());
    const Lanes<A> highest = broadcast(std::numeric_limits<A>::infinity());
    for (int64_t j = 0; j < kv_blocks; j += kLanes<A>) {
      const int64_t count = std::min<int64_t>(kLanes<A>, kv_blocks - j);
      Lanes<A> largest = lowest;
      for (int64_t a = 0; a < q_parts; ++a) {
        for (int64_t b = 0; b < k_parts; ++b) {
          const Lanes<A> x = load_some(raw + b * part_stride + a * kv_blocks + j, count);
          largest = x > largest ? x : largest;
        }
      }
      // An infinite shift would make a NaN of an infinite score.
      const Lanes<A> shift = ((largest == lowest) | (largest == highest)) ? Lanes<A>{} : largest;
      Lanes<A> sum{};
      for (int64_t a = 0; a < q_parts; ++a) {
        for (int64_t b = 0; b < k_parts; ++b) {
          const Lanes<A> x = load_some(raw + b * part_stride + a * kv_blocks + j, count);
          sum += exp_of_lanes(x - shift);
        }
      }
      store_first(shifts + j, shift, count);
      store_first(sums + j, sum, count);
    }
  }
};

template <class A>
void check_parts(const SubBlocks<A>& sub, int blocks, const char* side) {
  if (sub.means == nullptr) return;
  SPROCKET_CHECK(sub.parts >= 1 && sub.counts.size() == static_cast<size_t>(blocks),
                 "{} sub-blocks: {} parts, counts of {} of {} blocks", side, sub.parts,
                 sub.counts.size(), blocks);
  for (const int32_t count : sub.counts) {
    SPROCKET_CHECK(count >= 0 && count <= sub.parts, "{} sub-blocks: {} of {} parts", side, count,
                   sub.parts);
  }
}

}  // namespace

template <class A>
ScoreTiles<A>::ScoreTiles(const CoarseProblem<A>& problem)
    : problem_(problem), q_sub_(problem.q_sub), k_sub_(problem.k_sub) {
  if (!has_sub_blocks(problem)) return;
  if (q_sub_.means == nullptr) q_sub_ = {1, problem.qc, {}};
  if (k_sub_.means == nullptr) k_sub_ = {1, problem.kc, {}};
  for (size_t j = 0; j < k_sub_.counts.size(); ++j) {
    if (k_sub_.counts[j] < k_sub_.parts) partial_.push_back(static_cast<int32_t>(j));
  }
}

template <class A>
size_t ScoreTiles<A>::row_bytes(const CoarseProblem<A>& problem, bool selects) {
  const size_t row = sizeof(A) * problem.kv_blocks;
  if (!selects || !has_sub_blocks(problem)) return row;
  const size_t q_parts = problem.q_sub.means == nullptr ? 1 : problem.q_sub.parts;
  const size_t k_parts = problem.k_sub.means == nullptr ? 1 : problem.k_sub.parts;
  return row * (2 + q_parts * k_parts);
}

template <class A>
A* ScoreTiles<A>::scores(const RowTile& tile) {
  const auto& p = problem_;
  A* to = scores_.reserve(tile.rows * p.kv_blocks);
  panel_product<A>(
      {p.qc + (tile.batch_head * p.query_blocks + tile.first) * p.head_dim, 0, p.head_dim, 1},
      {p.kc + tile.batch_head * p.kv_blocks * p.head_dim, 0, 1, p.head_dim}, 1, tile.rows,
      p.kv_blocks, p.head_dim, p.scale, to, 1);
  return to;
}

template <class A>
A* ScoreTiles<A>::selection_scores(const RowTile& tile) {
  const auto& p = problem_;
  if (!has_sub_blocks(p)) return scores(tile);
  const int64_t q_parts = q_sub_.parts, k_parts = k_sub_.parts, n = p.kv_blocks;
  const int64_t raw_rows = tile.rows * q_parts;
  A* to = selection_.reserve(tile.rows * n);
  A* raw = raw_.reserve(raw_rows * k_parts * n);
  panel_product<A>(
      {q_sub_.means + (tile.batch_head * p.query_blocks + tile.first) * q_parts * p.head_dim, 0,
       p.head_dim, 1},
      {k_sub_.means + tile.batch_head * n * k_parts * p.head_dim, p.head_dim, 1,
       k_parts * p.head_dim},
      k_parts, raw_rows, n, p.head_dim, p.scale, raw, 1);
  drop_empty_parts(raw_rows);
  for (int64_t i = 0; i < tile.rows; ++i) {
    const int64_t parts = q_sub_.counts.empty() ? q_parts : q_sub_.counts[tile.first + i];
    // The first raw row of the block has been read when its place is taken by the sums.
    A* sums = raw + i * q_parts * n;
    run_on_isa<PartSumKernel<A>>(static_cast<const A*>(sums), raw_rows * n, parts, k_parts, n,
                                 to + i * n, sums);
    for (int64_t j = 0; j < n; ++j) to[i * n + j] += std::log(sums[j]);
  }
  return to;
}

template <class A>
void ScoreTiles<A>::drop_empty_parts(int64_t raw_rows) {
  const int64_t n = problem_.kv_blocks;
  for (const int32_t j : partial_) {
    for (int64_t part = k_sub_.counts[j]; part < k_sub_.parts; ++part) {
      A* column = raw_.data() + part * raw_rows * n + j;
      for (int64_t row = 0; row < raw_rows; ++row) {
        column[row * n] = -std::numeric_limits<A>::infinity();
      }
    }
  }
}

template <class A>
void multiply_values(const CoarseProblem<A>& problem, const RowTile& tile, const A* probabilities,
                     A* out) {
  const int64_t n = problem.kv_blocks, dim = problem.head_dim;
  panel_product<A>({probabilities, 0, n, 1}, {problem.vc + tile.batch_head * n * dim, 0, dim, 1}, 1,
                   tile.rows, dim, n, 1,
                   out + (tile.batch_head * problem.query_blocks + tile.first) * dim, 1);
}

template <class A>
void softmax_rows(A* scores, int64_t rows, int64_t kv_blocks) {
  for (int64_t row = 0; row < rows; ++row) {
    run_on_isa<RowSoftmaxKernel<A>>(scores + row * kv_blocks, kv_blocks,
                                    static_cast<SoftmaxRow<A>*>(nullptr));
  }
}

template <class A>
void check_problem(const CoarseProblem<A>& p) {
  SPROCKET_CHECK(p.batch >= 0 && p.heads >= 0 && p.query_blocks >= 0 && p.head_dim >= 1,
                 "coarse attention of [{}, {}, {}, {}]", p.batch, p.heads, p.query_blocks,
                 p.head_dim);
  SPROCKET_CHECK(p.first_query_block >= 0 && p.first_query_block <= p.kv_blocks - p.query_blocks,
                 "query blocks {} to {} of {}", p.first_query_block,
                 p.first_query_block + p.query_blocks, p.kv_blocks);
  SPROCKET_CHECK(p.prefix_blocks >= 0 && p.prefix_blocks <= p.kv_blocks,
                 "{} of {} blocks are of the prefix", p.prefix_blocks, p.kv_blocks);
  check_parts(p.q_sub, p.query_blocks, "query");
  check_parts(p.k_sub, p.kv_blocks, "KV");
}

template <class A>
void check_selection(const CoarseProblem<A>& problem, int k, const A* out) {
  check_problem(problem);
  SPROCKET_CHECK(out == nullptr || problem.vc != nullptr, "an output needs vc");
  const int64_t end = problem.first_query_block + problem.query_blocks;
  const int video = problem.kv_blocks - problem.prefix_blocks;
  const bool needs_count =
      problem.batch * problem.heads > 0 && problem.query_blocks > 0 && end > problem.prefix_blocks;
  SPROCKET_CHECK(!needs_count || (k >= 1 && k <= video),
                 "expected 1 to {} selected blocks, found {}", video, k);
}

template <class A>
void RowRule::select(const A* scores, int64_t query_block, RowSelector<A>& selector,
                     int32_t* ids) const {
  if (query_block < prefix_rows) {
    std::iota(ids, ids + kv_blocks, 0);
    return;
  }
  std::iota(ids, ids + exempt(), 0);
  ids += exempt();
  selector.select(scores + exempt(), kv_blocks - exempt(), selected(), ids);
  for (int64_t i = 0; i < selected(); ++i) ids[i] += static_cast<int32_t>(exempt());
}

#define SPROCKET_INSTANTIATE(A)                                                            \
  template class ScoreTiles<A>;                                                            \
  template void multiply_values<A>(const CoarseProblem<A>&, const RowTile&, const A*, A*); \
  template void softmax_rows<A>(A*, int64_t, int64_t);                                     \
  template void check_problem<A>(const CoarseProblem<A>&);                                 \
  template void check_selection<A>(const CoarseProblem<A>&, int, const A*);                \
  template void RowRule::select<A>(const A*, int64_t, RowSelector<A>&, int32_t*) const;
SPROCKET_INSTANTIATE(float)
SPROCKET_INSTANTIATE(double)
#undef SPROCKET_INSTANTIATE

}  // namespace sprocket::kernels::internal
