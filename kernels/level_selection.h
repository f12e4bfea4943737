// PSA's selection (arXiv 2512.04025): from sampled scores to a pooling level of every block.
//
// A row of N video blocks is sorted by descending score, ties to the smaller id; C_r is the sum of
// the scores up to position r, in double. Level t (from 1, the finest) is for the smallest t whose
// bound the position meets; the others are skipped.
//   kPaper  C_r <= tau_t * C_N. A top block heavier than every tau leaves the row empty, which is
//           legal (O = 0, LSE = -inf).
//   kCover  level t also takes the block that carries C beyond tau_t * C_N, and level 1 has at
//   least
//           floor(least_finest * N) + 1 blocks
//   kQuota  position < floor((quota_1 + .. + quota_t) * N), in exact decimal arithmetic; empty
//   where
//           that is 0
// A similarity cap then moves selected blocks to a finer level. A row of zeros is all level 1 under
// kPaper and kCover; scores that are NaN weigh nothing and come last.
//
// Prefix blocks are outside of all this: they are at level 1 for every query block, and prefix
// query blocks take every block at level 1. Nothing here is differentiated.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/decimal.h"
#include "kernels/import_budget.h"
#include "kernels/level_rule.h"
#include "kernels/pyramid.h"
#include "kernels/sampled_scores.h"
#include "kernels/score_order.h"
#include "kernels/segment_table.h"

namespace sprocket::kernels {

struct LevelSelection {
  LevelRule rule = LevelRule::kCover;
  std::vector<Decimal> thresholds;              // kPaper, kCover: tau of every level
  Decimal least_finest = Decimal::ratio(6, 2);  // kCover
  std::vector<Decimal> quotas;                  // kQuota: share of the blocks at every level
};

// The rule for rows of `blocks` scores; at most kMostLevels levels.
LevelBounds level_bounds(const LevelSelection& selection, int blocks);

// Applies a rule to rows of `blocks` scores; one for each thread.
template <class A>
class LevelAssigner {
 public:
  LevelAssigner(const LevelSelection& selection, int blocks);
  // levels[j] = level of block j, 0 skipped. caps: the coarsest level allowed, or empty. Of fewer
  // scores than `blocks`, shares are of these and counts are of `blocks`.
  void assign(std::span<const A> scores, std::span<const uint8_t> caps, std::span<uint8_t> levels);

 private:
  void find_ends(std::span<const A> scores, std::span<const int32_t> order);

  const LevelBounds bounds_;
  std::array<int64_t, kMostLevels> ends_{};  // sorted positions at each level or a finer one
  ScoreOrder<A> order_;
};

// The table over segment ids of `layout`, the pyramid of the whole sequence (layout.blocks() ==
// scores.kv_blocks, one threshold or quota for each of its levels).
// caps: [batch, heads, kv_blocks] of similarity_caps, or null. levels: null, or
// [batch, heads, query_blocks, kv_blocks], filled with the level of every pair.
template <class A>
SegmentTable select_levels(const SampledScoreProblem<A>& scores, const LevelSelection& selection,
                           const PyramidLayout& layout, const uint8_t* caps, uint8_t* levels);

// The same with a budget; a row's shares are its scores over their sum. Scores: SampledScoreProblem
// or GivenScores of A. `selection` and what follows must outlive the result.
template <class A, class Scores>
std::unique_ptr<BudgetedSelection<A>> budgeted_selection(
    const Scores& scores, const LevelSelection& selection, const PyramidLayout& layout,
    const uint8_t* caps, const DomainBudget& budget, HeldDomains held);

// The coarsest level each block of keys is similar enough for: the largest t whose test passes,
// even if a smaller one's fails, and 1 if none does. The test of level t: the mean, over the
// block's groups of widths[t - 1] adjacent tokens, of the cosine between a group's first and last
// token is above thresholds[t - 2]. The last group may be short; a group of one token has cosine 1,
// and a zero vector has cosine 0 to everything. caps: [batch, heads, blocks], overwritten.
template <class T>
void similarity_caps(HeadView<const T> k, std::span<const int64_t> block_offsets, int batch,
                     int heads, int head_dim, std::span<const int> widths,
                     std::span<const double> thresholds, uint8_t* caps, int threads);

}  // namespace sprocket::kernels
