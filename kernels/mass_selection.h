// ASA's selection (BLADE, arXiv 2508.10774): the blocks that hold most of a row's sampled scores.
//
// A row of N video blocks is sorted by descending score, ties to the smaller id; C_r is the sum of
// the scores up to position r, in double. Kept are the blocks in front of the one that carries C to
// `mass` * C_N, the *crossing* block, and with `include_crossing` this one too; their number is
// then clamped to [floor(least * N), floor(most * N)], each at least 1. Scores that are NaN weigh
// nothing and come last.
//
// Prefix blocks are outside of all this: every query block takes them, and prefix query blocks take
// every block. Nothing here is differentiated.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "base/decimal.h"
#include "kernels/import_budget.h"
#include "kernels/mass_rule.h"
#include "kernels/sampled_scores.h"
#include "kernels/score_order.h"
#include "kernels/segment_table.h"

namespace sprocket::kernels {

struct MassSelection {
  Decimal mass = Decimal::ratio(95, 2);
  bool include_crossing = false;  // the public code excludes it
  Decimal least = Decimal::ratio(5, 2);
  Decimal most = Decimal::ratio(17, 2);
};

// The rule for rows of `blocks` scores.
MassBounds mass_bounds(const MassSelection& selection, int blocks);

// Applies the rule to rows of `blocks` scores; one for each thread.
template <class A>
class MassSelector {
 public:
  MassSelector(const MassSelection& selection, int blocks);
  // The kept ids, best first; of fewer scores than `blocks` at most all. Valid until the next call.
  std::span<const int32_t> select(std::span<const A> scores);

 private:
  MassBounds bounds_;
  ScoreOrder<A> order_;
};

// The table of the call's query blocks over block ids.
template <class A>
SegmentTable select_by_mass(const SampledScoreProblem<A>& scores, const MassSelection& selection);

// The same with a budget; a row's shares are its scores over their sum. Scores: SampledScoreProblem
// or GivenScores of A. `selection` and what follows must outlive the result.
template <class A, class Scores>
std::unique_ptr<BudgetedSelection<A>> budgeted_selection(const Scores& scores,
                                                         const MassSelection& selection,
                                                         const DomainBudget& budget,
                                                         HeldDomains held);

}  // namespace sprocket::kernels
