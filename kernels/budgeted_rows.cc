#include "kernels/budgeted_rows.h"

#include <omp.h>

#include <algorithm>
#include <utility>

#include "kernels/score_order.h"
#include "kernels/table_rows.h"

namespace sprocket::kernels::internal {

template <class A>
void shares_of_masses(std::span<const A> scores, std::span<A> shares) {
  double total = 0;
  for (const A score : scores) total += mass_of(score);
  for (size_t j = 0; j < scores.size(); ++j) {
    shares[j] = total == 0 ? A{0} : static_cast<A>(mass_of(scores[j]) / total);
  }
}

int RowsShape::prefix_rows() const {
  return std::clamp(prefix_blocks - first_query_block, 0, query_blocks);
}

template <class A>
BudgetedRows<A>::BudgetedRows(const RowsShape& shape, const DomainBudget& budget, HeldDomains held,
                              MakeRule make_rule, const PyramidLayout* layout, const uint8_t* caps)
    : shape_(shape),
      budget_(budget),
      held_(held),
      make_rule_(std::move(make_rule)),
      layout_(layout),
      caps_(caps),
      batch_heads_(int64_t{shape.batch} * shape.heads),
      scores_(batch_heads_ * (shape.query_blocks - shape.prefix_rows()) * shape.video_blocks()) {
  check_budget(budget, held, shape.heads, shape.first_query_block, shape.query_blocks,
               shape.kv_blocks);
}

template <class A>
A* BudgetedRows<A>::scores(int64_t batch_head, int query_block) {
  const int64_t rows = shape_.query_blocks - shape_.prefix_rows();
  return scores_.data() +
         (batch_head * rows + query_block - shape_.prefix_rows()) * shape_.video_blocks();
}

template <class A>
void BudgetedRows<A>::take(int /*thread*/, int64_t batch_head, int query_block,
                           std::span<const A> row) {
  std::copy(row.begin(), row.end(), scores(batch_head, query_block));
}

template <class A>
std::span<const uint8_t> BudgetedRows<A>::caps_of(int64_t batch_head) const {
  if (caps_ == nullptr) return {};
  return {caps_ + batch_head * shape_.kv_blocks + shape_.prefix_blocks,
          static_cast<size_t>(shape_.video_blocks())};
}

// A thread passes over whole domains of a head, so that sums run over ascending query blocks.
template <class A>
DomainMasses<A> BudgetedRows<A>::masses() {
  const size_t video = shape_.video_blocks();
  DomainMasses<A> masses(held_, shape_.batch, shape_.heads, shape_.video_blocks());
#pragma omp parallel num_threads(shape_.threads)
  {
    const std::unique_ptr<LevelRule<A>> rule = make_rule_();
    std::vector<uint8_t> levels(video);
    std::vector<A> shares(video);
#pragma omp for collapse(2) schedule(dynamic)
    for (int g = held_.first; g < held_.last; ++g) {
      for (int64_t bh = 0; bh < batch_heads_; ++bh) {
        A* const mass = masses.row(g, bh);
        const int first = budget_.first_block[g] - shape_.first_query_block;
        for (int row = first; row < first + budget_.blocks(g); ++row) {
          const std::span<const A> scores_of_row(scores(bh, row), video);
          rule->assign(scores_of_row, caps_of(bh), levels);
          rule->weigh(scores_of_row, shares);
          for (size_t j = 0; j < video; ++j) mass[j] += levels[j] > 0 ? shares[j] : A{0};
        }
      }
    }
  }
  return masses;
}

template <class A>
void BudgetedRows<A>::append(int block, int level, std::vector<int32_t>& ids) const {
  if (layout_ == nullptr) {
    ids.push_back(block);
    return;
  }
  const SegmentRange range = layout_->segments_of(block, level);
  for (int32_t i = 0; i < range.count; ++i) ids.push_back(range.first + i);
}

template <class A>
SegmentTable BudgetedRows<A>::select(const AllowedBlocks& allowed) {
  const int prefix = shape_.prefix_blocks;
  TableRows table(shape_.batch, shape_.heads, shape_.query_blocks,
                  layout_ == nullptr ? shape_.kv_blocks : layout_->segments(), shape_.threads);
  std::vector<int> domain_of_row(shape_.query_blocks, -1);
  for (int g = held_.first; g < held_.last; ++g) {
    const int first = budget_.first_block[g] - shape_.first_query_block;
    std::fill_n(domain_of_row.begin() + first, budget_.blocks(g), g);
  }
  const int64_t rows = batch_heads_ * shape_.query_blocks;
#pragma omp parallel num_threads(shape_.threads)
  {
    const std::unique_ptr<LevelRule<A>> rule = make_rule_();
    std::vector<int32_t> ids;
    std::vector<uint8_t> levels, caps;
    std::vector<A> gathered;
#pragma omp for schedule(dynamic, 8)
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t bh = row / shape_.query_blocks;
      const int query_block = static_cast<int>(row % shape_.query_blocks);
      const int domain = domain_of_row[query_block];
      ids.clear();
      for (int j = 0; j < (domain < 0 ? shape_.kv_blocks : prefix); ++j) append(j, 1, ids);
      if (domain >= 0) {
        const std::span<const int32_t> candidates = allowed.of(domain, bh);
        const std::span<const uint8_t> all_caps = caps_of(bh);
        const A* const all = scores(bh, query_block);
        gathered.clear();
        caps.clear();
        for (const int32_t id : candidates) gathered.push_back(all[id - prefix]);
        if (!all_caps.empty()) {
          for (const int32_t id : candidates) caps.push_back(all_caps[id - prefix]);
        }
        levels.resize(candidates.size());
        rule->assign(gathered, caps, levels);
        for (size_t i = 0; i < candidates.size(); ++i) {
          if (levels[i] > 0) append(candidates[i], levels[i], ids);
        }
      }
      table.add(omp_get_thread_num(), row, ids);
    }
  }
  return table.table();
}

template void shares_of_masses(std::span<const float>, std::span<float>);
template void shares_of_masses(std::span<const double>, std::span<double>);
template class BudgetedRows<float>;
template class BudgetedRows<double>;

}  // namespace sprocket::kernels::internal
