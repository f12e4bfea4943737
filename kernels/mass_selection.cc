#include "kernels/mass_selection.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "base/error.h"
#include "kernels/budgeted_rows.h"
#include "kernels/table_rows.h"

namespace sprocket::kernels {

MassBounds mass_bounds(const MassSelection& selection, int blocks) {
  const MassBounds bounds{share_of(selection.mass), selection.include_crossing,
                          std::max<int64_t>(selection.least.floor_times(blocks), 1),
                          std::max<int64_t>(selection.most.floor_times(blocks), 1)};
  SPROCKET_CHECK_LE(bounds.least, bounds.most);
  return bounds;
}

template <class A>
MassSelector<A>::MassSelector(const MassSelection& selection, int blocks)
    : bounds_(mass_bounds(selection, blocks)) {}

template <class A>
std::span<const int32_t> MassSelector<A>::select(std::span<const A> scores) {
  const std::span<const int32_t> order = order_.sort(scores);
  double total = 0;
  for (const int32_t id : order) total += mass_of(scores[id]);
  const int64_t blocks = static_cast<int64_t>(order.size());
  const double threshold = bounds_.mass.of(total);
  int64_t kept = 0;
  double cumulated = 0;
  for (; kept < blocks; ++kept) {
    cumulated += mass_of(scores[order[kept]]);
    if (cumulated >= threshold) break;
  }
  if (bounds_.include_crossing) ++kept;
  return order.first(std::min(std::clamp(kept, bounds_.least, bounds_.most), blocks));
}

namespace {

template <class A>
class MassSink : public ScoreRowSink<A> {
 public:
  MassSink(const SampledScoreProblem<A>& problem, const MassSelection& selection)
      : p_(problem),
        rows_(problem.batch, problem.heads, problem.query_blocks, problem.kv_blocks,
              problem.threads) {
    std::vector<int32_t> prefix(p_.prefix_blocks);
    std::iota(prefix.begin(), prefix.end(), 0);
    for (int thread = 0; thread < p_.threads; ++thread) {
      scratch_.push_back({MassSelector<A>(selection, p_.kv_blocks - p_.prefix_blocks), prefix});
    }
  }

  void take(int thread, int64_t batch_head, int query_block, std::span<const A> scores) override {
    auto& [selector, ids] = scratch_[thread];
    ids.resize(p_.prefix_blocks);
    for (const int32_t id : selector.select(scores)) ids.push_back(p_.prefix_blocks + id);
    std::sort(ids.begin() + p_.prefix_blocks, ids.end());
    rows_.add(thread, batch_head * p_.query_blocks + query_block, ids);
  }

  SegmentTable table() {
    std::vector<int32_t> all(p_.kv_blocks);
    std::iota(all.begin(), all.end(), 0);
    const int count = std::clamp(p_.prefix_blocks - p_.first_query_block, 0, p_.query_blocks);
    const int64_t batch_heads = static_cast<int64_t>(p_.batch) * p_.heads;
    for (int64_t batch_head = 0; batch_head < batch_heads; ++batch_head) {
      for (int block = 0; block < count; ++block) {
        rows_.add(0, batch_head * p_.query_blocks + block, all);
      }
    }
    return rows_.table();
  }

 private:
  struct Scratch {
    MassSelector<A> selector;
    std::vector<int32_t> ids;  // the prefix blocks stay in front
  };

  const SampledScoreProblem<A>& p_;
  TableRows rows_;
  std::vector<Scratch> scratch_;
};

}  // namespace

template <class A>
SegmentTable select_by_mass(const SampledScoreProblem<A>& scores, const MassSelection& selection) {
  MassSink<A> sink(scores, selection);
  sampled_scores(scores, sink);
  return sink.table();
}

namespace {

template <class A>
class MassRule : public internal::LevelRule<A> {
 public:
  MassRule(const MassSelection& selection, int blocks) : selector_(selection, blocks) {}
  void assign(std::span<const A> scores, std::span<const uint8_t>,
              std::span<uint8_t> levels) override {
    std::fill(levels.begin(), levels.end(), uint8_t{0});
    for (const int32_t id : selector_.select(scores)) levels[id] = 1;
  }
  void weigh(std::span<const A> scores, std::span<A> shares) override {
    internal::shares_of_masses(scores, shares);
  }

 private:
  MassSelector<A> selector_;
};

}  // namespace

template <class A, class Scores>
std::unique_ptr<BudgetedSelection<A>> budgeted_selection(const Scores& scores,
                                                         const MassSelection& selection,
                                                         const DomainBudget& budget,
                                                         HeldDomains held) {
  const internal::RowsShape shape = internal::RowsShape::of(scores);
  auto rows = std::make_unique<internal::BudgetedRows<A>>(
      shape, budget, held,
      [&selection, blocks = shape.video_blocks()] {
        return std::make_unique<MassRule<A>>(selection, blocks);
      },
      nullptr, nullptr);
  sampled_scores(scores, *rows);
  return rows;
}

template class MassSelector<float>;
template class MassSelector<double>;
template SegmentTable select_by_mass(const SampledScoreProblem<float>&, const MassSelection&);
template SegmentTable select_by_mass(const SampledScoreProblem<double>&, const MassSelection&);
template std::unique_ptr<BudgetedSelection<float>> budgeted_selection(
    const SampledScoreProblem<float>&, const MassSelection&, const DomainBudget&, HeldDomains);
template std::unique_ptr<BudgetedSelection<float>> budgeted_selection(const GivenScores<float>&,
                                                                      const MassSelection&,
                                                                      const DomainBudget&,
                                                                      HeldDomains);
template std::unique_ptr<BudgetedSelection<double>> budgeted_selection(
    const SampledScoreProblem<double>&, const MassSelection&, const DomainBudget&, HeldDomains);

}  // namespace sprocket::kernels
