#include "kernels/level_selection.h"

#include <omp.h>

#include <algorithm>

#include "base/error.h"
#include "kernels/budgeted_rows.h"
#include "kernels/table_rows.h"

namespace sprocket::kernels {

LevelBounds level_bounds(const LevelSelection& selection, int blocks) {
  const bool by_quota = selection.rule == LevelRule::kQuota;
  const std::vector<Decimal>& shares = by_quota ? selection.quotas : selection.thresholds;
  SPROCKET_CHECK_LE(shares.size(), static_cast<size_t>(kMostLevels));
  LevelBounds bounds;
  bounds.rule = selection.rule;
  bounds.levels = static_cast<int>(shares.size());
  switch (selection.rule) {
    case LevelRule::kPaper:
    case LevelRule::kCover:
      SPROCKET_CHECK(std::is_sorted(shares.begin(), shares.end()), "thresholds do not ascend");
      std::transform(shares.begin(), shares.end(), bounds.thresholds, share_of);
      bounds.least_finest = static_cast<int>(
          std::min<int64_t>(selection.least_finest.floor_times(blocks) + 1, blocks));
      break;
    case LevelRule::kQuota: {
      Decimal share;
      for (int level = 0; level < bounds.levels; ++level) {
        share = share + shares[level];
        bounds.positions[level] =
            static_cast<int>(std::min<int64_t>(share.floor_times(blocks), blocks));
      }
      SPROCKET_CHECK(std::is_sorted(bounds.positions, bounds.positions + bounds.levels),
                     "a quota is negative");
      break;
    }
  }
  return bounds;
}

template <class A>
LevelAssigner<A>::LevelAssigner(const LevelSelection& selection, int blocks)
    : bounds_(level_bounds(selection, blocks)) {
  std::copy_n(bounds_.positions, bounds_.levels, ends_.begin());
}

template <class A>
void LevelAssigner<A>::find_ends(std::span<const A> scores, std::span<const int32_t> order) {
  double total = 0;
  for (const int32_t id : order) total += mass_of(scores[id]);
  std::array<double, kMostLevels> thresholds;
  for (int level = 0; level < bounds_.levels; ++level) {
    thresholds[level] = bounds_.thresholds[level].of(total);
  }
  const int64_t blocks = static_cast<int64_t>(order.size());
  double cumulated = 0;
  int level = 0;
  for (int64_t position = 0; position < blocks; ++position) {
    cumulated += mass_of(scores[order[position]]);
    while (level < bounds_.levels && cumulated > thresholds[level]) ends_[level++] = position;
  }
  for (; level < bounds_.levels; ++level) ends_[level] = blocks;
  if (bounds_.rule == LevelRule::kPaper) return;
  for (int64_t& end : ends_) end = std::min(end + 1, blocks);
  ends_[0] = std::max(ends_[0], std::min<int64_t>(bounds_.least_finest, blocks));
}

template <class A>
void LevelAssigner<A>::assign(std::span<const A> scores, std::span<const uint8_t> caps,
                              std::span<uint8_t> levels) {
  SPROCKET_CHECK_EQ(scores.size(), levels.size());
  const std::span<const int32_t> order = order_.sort(scores);
  if (bounds_.rule != LevelRule::kQuota) find_ends(scores, order);
  std::fill(levels.begin(), levels.end(), uint8_t{0});
  const int64_t blocks = static_cast<int64_t>(order.size());
  int64_t position = 0;
  for (int level = 0; level < bounds_.levels; ++level) {
    for (; position < std::min(ends_[level], blocks); ++position) {
      levels[order[position]] = static_cast<uint8_t>(level + 1);
    }
  }
  for (size_t j = 0; j < caps.size(); ++j) levels[j] = std::min(levels[j], caps[j]);
}

namespace {

// Turns levels into segments, row by row.
template <class A>
class LevelSink : public ScoreRowSink<A> {
 public:
  LevelSink(const SampledScoreProblem<A>& problem, const LevelSelection& selection,
            const PyramidLayout& layout, const uint8_t* caps, uint8_t* dump)
      : p_(problem),
        layout_(layout),
        caps_(caps),
        dump_(dump),
        rows_(problem.batch, problem.heads, problem.query_blocks, layout.segments(),
              problem.threads) {
    const int video_blocks = p_.kv_blocks - p_.prefix_blocks;
    for (int thread = 0; thread < p_.threads; ++thread) {
      scratch_.push_back(
          {LevelAssigner<A>(selection, video_blocks), std::vector<uint8_t>(p_.kv_blocks, 1), {}});
    }
  }

  void take(int thread, int64_t batch_head, int query_block, std::span<const A> scores) override {
    Scratch& scratch = scratch_[thread];
    const std::span<uint8_t> levels(scratch.levels);
    std::span<const uint8_t> caps;
    if (caps_ != nullptr) {
      caps = {caps_ + batch_head * p_.kv_blocks + p_.prefix_blocks, scores.size()};
    }
    scratch.assigner.assign(scores, caps, levels.subspan(p_.prefix_blocks));
    add(thread, batch_head, query_block, levels);
  }

  SegmentTable table() {
    add_prefix_rows();
    return rows_.table();
  }

 private:
  struct Scratch {
    LevelAssigner<A> assigner;
    std::vector<uint8_t> levels;  // prefix blocks stay at level 1
    std::vector<int32_t> ids;
  };

  void add(int thread, int64_t batch_head, int query_block, std::span<const uint8_t> levels) {
    std::vector<int32_t>& ids = scratch_[thread].ids;
    ids.clear();
    for (int block = 0; block < p_.kv_blocks; ++block) {
      if (levels[block] == 0) continue;
      const SegmentRange range = layout_.segments_of(block, levels[block]);
      for (int32_t i = 0; i < range.count; ++i) ids.push_back(range.first + i);
    }
    const int64_t row = batch_head * p_.query_blocks + query_block;
    rows_.add(thread, row, ids);
    if (dump_ != nullptr) std::copy(levels.begin(), levels.end(), dump_ + row * p_.kv_blocks);
  }

  void add_prefix_rows() {
    const std::vector<uint8_t> finest(p_.kv_blocks, 1);
    const int count = std::clamp(p_.prefix_blocks - p_.first_query_block, 0, p_.query_blocks);
    const int64_t batch_heads = static_cast<int64_t>(p_.batch) * p_.heads;
    for (int64_t batch_head = 0; batch_head < batch_heads; ++batch_head) {
      for (int block = 0; block < count; ++block) add(0, batch_head, block, finest);
    }
  }

  const SampledScoreProblem<A>& p_;
  const PyramidLayout& layout_;
  const uint8_t* caps_;
  uint8_t* dump_;
  TableRows rows_;
  std::vector<Scratch> scratch_;
};

void check_levels(int kv_blocks, const LevelSelection& selection, const PyramidLayout& layout) {
  const size_t given =
      selection.rule == LevelRule::kQuota ? selection.quotas.size() : selection.thresholds.size();
  SPROCKET_CHECK_EQ(given, layout.widths.size());
  SPROCKET_CHECK_EQ(layout.blocks(), kv_blocks);
}

template <class A>
class AssignerRule : public internal::LevelRule<A> {
 public:
  AssignerRule(const LevelSelection& selection, int blocks) : assigner_(selection, blocks) {}
  void assign(std::span<const A> scores, std::span<const uint8_t> caps,
              std::span<uint8_t> levels) override {
    assigner_.assign(scores, caps, levels);
  }
  void weigh(std::span<const A> scores, std::span<A> shares) override {
    internal::shares_of_masses(scores, shares);
  }

 private:
  LevelAssigner<A> assigner_;
};

}  // namespace

template <class A>
SegmentTable select_levels(const SampledScoreProblem<A>& scores, const LevelSelection& selection,
                           const PyramidLayout& layout, const uint8_t* caps, uint8_t* levels) {
  check_levels(scores.kv_blocks, selection, layout);
  LevelSink<A> sink(scores, selection, layout, caps, levels);
  sampled_scores(scores, sink);
  return sink.table();
}

template <class A, class Scores>
std::unique_ptr<BudgetedSelection<A>> budgeted_selection(
    const Scores& scores, const LevelSelection& selection, const PyramidLayout& layout,
    const uint8_t* caps, const DomainBudget& budget, HeldDomains held) {
  check_levels(scores.kv_blocks, selection, layout);
  const internal::RowsShape shape = internal::RowsShape::of(scores);
  auto rows = std::make_unique<internal::BudgetedRows<A>>(
      shape, budget, held,
      [&selection, blocks = shape.video_blocks()] {
        return std::make_unique<AssignerRule<A>>(selection, blocks);
      },
      &layout, caps);
  sampled_scores(scores, *rows);
  return rows;
}

template class LevelAssigner<float>;
template class LevelAssigner<double>;
template SegmentTable select_levels(const SampledScoreProblem<float>&, const LevelSelection&,
                                    const PyramidLayout&, const uint8_t*, uint8_t*);
template SegmentTable select_levels(const SampledScoreProblem<double>&, const LevelSelection&,
                                    const PyramidLayout&, const uint8_t*, uint8_t*);
template std::unique_ptr<BudgetedSelection<float>> budgeted_selection(
    const SampledScoreProblem<float>&, const LevelSelection&, const PyramidLayout&, const uint8_t*,
    const DomainBudget&, HeldDomains);
template std::unique_ptr<BudgetedSelection<float>> budgeted_selection(
    const GivenScores<float>&, const LevelSelection&, const PyramidLayout&, const uint8_t*,
    const DomainBudget&, HeldDomains);
template std::unique_ptr<BudgetedSelection<double>> budgeted_selection(
    const SampledScoreProblem<double>&, const LevelSelection&, const PyramidLayout&, const uint8_t*,
    const DomainBudget&, HeldDomains);

}  // namespace sprocket::kernels
