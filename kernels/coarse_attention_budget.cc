#include <omp.h>

#include <algorithm>
#include <numeric>

#include "kernels/coarse_attention_tiles.h"
#include "kernels/table_rows.h"

namespace sprocket::kernels {
namespace {

using internal::RowRule;
using internal::RowTile;
using internal::ScoreTiles;

template <class A>
class CoarseBudgetedSelection : public BudgetedSelection<A> {
 public:
  CoarseBudgetedSelection(const CoarseProblem<A>& problem, int k, const DomainBudget& budget,
                          HeldDomains held, A* out)
      : problem_(problem),
        budget_(budget),
        held_(held),
        rule_(problem, k),
        out_(out),
        batch_heads_(int64_t{problem.batch} * problem.heads) {
    internal::check_selection(problem, k, out);
    check_budget(budget, held, problem.heads, problem.first_query_block, problem.query_blocks,
                 problem.kv_blocks);
    for (int g = held.first; g < held.last; ++g) {
      longest_domain_ = std::max<int64_t>(longest_domain_, budget.blocks(g));
    }
  }

  // A thread passes over whole domains of a head, so that sums run over ascending query blocks.
  DomainMasses<A> masses() override {
    attend_prefix_rows();
    const int64_t n = problem_.kv_blocks, prefix = rule_.prefix_blocks;
    const int64_t listed = rule_.exempt() + rule_.selected();
    DomainMasses<A> masses(held_, problem_.batch, problem_.heads, budget_.video_blocks());
    const int64_t step = internal::tile_rows(ScoreTiles<A>::row_bytes(problem_, true));
#pragma omp parallel num_threads(problem_.threads)
    {
      ScoreTiles<A> tiles(problem_);
      RowSelector<A> selector;
      std::vector<int32_t> ids;
#pragma omp for collapse(2) schedule(dynamic)
      for (int g = held_.first; g < held_.last; ++g) {
        for (int64_t bh = 0; bh < batch_heads_; ++bh) {
          A* const mass = masses.row(g, bh);
          const int64_t begin = first_row(g), end = begin + budget_.blocks(g);
          for (int64_t row = begin; row < end; row += step) {
            const RowTile tile{bh, row, std::min(step, end - row)};
            A* scores = tiles.selection_scores(tile);
            ids.resize(tile.rows * listed);
            for (int64_t i = 0; i < tile.rows; ++i) {
              rule_.select(scores + i * n, row + i, selector, ids.data() + i * listed);
            }
            if (ScoreTiles<A>::has_sub_blocks(problem_)) scores = tiles.scores(tile);
            internal::softmax_rows(scores, tile.rows, n);
            for (int64_t i = 0; i < tile.rows; ++i) {
              for (int64_t l = i * listed; l < (i + 1) * listed; ++l) {
                if (ids[l] >= prefix) mass[ids[l] - prefix] += scores[i * n + ids[l]];
              }
            }
            attend(tile, scores);
          }
        }
      }
    }
    return masses;
  }

  SegmentTable select(const AllowedBlocks& allowed) override {
    TableRows rows(problem_.batch, problem_.heads, problem_.query_blocks, problem_.kv_blocks,
                   problem_.threads);
    const int64_t n = problem_.kv_blocks;
    const int64_t step =
        internal::tile_rows(ScoreTiles<A>::row_bytes(problem_, true),
                            held_.count() * batch_heads_ * longest_domain_, problem_.threads);
    add_prefix_rows(rows);
#pragma omp parallel num_threads(problem_.threads)
    {
      ScoreTiles<A> tiles(problem_);
      RowSelector<A> selector;
      std::vector<A> gathered;
      std::vector<int32_t> candidates, ids;
#pragma omp for collapse(3) schedule(dynamic)
      for (int g = held_.first; g < held_.last; ++g) {
        for (int64_t bh = 0; bh < batch_heads_; ++bh) {
          for (int64_t from = 0; from < longest_domain_; from += step) {
            const int64_t count = std::min(step, budget_.blocks(g) - from);
            if (count <= 0) continue;
            const RowTile tile{bh, first_row(g) + from, count};
            const A* scores = tiles.selection_scores(tile);
            candidates.resize(rule_.rule == PrefixRule::kCompete ? rule_.prefix_blocks : 0);
            std::iota(candidates.begin(), candidates.end(), 0);
            const auto video = allowed.of(g, bh);
            candidates.insert(candidates.end(), video.begin(), video.end());
            for (int64_t i = 0; i < count; ++i) {
              choose(scores + i * n, candidates, selector, gathered, ids);
              rows.add(omp_get_thread_num(), bh * problem_.query_blocks + tile.first + i, ids);
            }
          }
        }
      }
    }
    return rows.table();
  }

 private:
  int64_t first_row(int domain) const {
    return budget_.first_block[domain] - problem_.first_query_block;
  }

  void attend(const RowTile& tile, A* probabilities) {
    if (out_ != nullptr) internal::multiply_values(problem_, tile, probabilities, out_);
  }

  void attend_prefix_rows() {
    if (out_ == nullptr) return;
    const int64_t rows = rule_.prefix_rows;
    const int64_t step = internal::tile_rows(ScoreTiles<A>::row_bytes(problem_, false),
                                             batch_heads_ * rows, problem_.threads);
#pragma omp parallel num_threads(problem_.threads)
    {
      ScoreTiles<A> tiles(problem_);
#pragma omp for collapse(2) schedule(dynamic)
      for (int64_t bh = 0; bh < batch_heads_; ++bh) {
        for (int64_t first = 0; first < rows; first += step) {
          const RowTile tile{bh, first, std::min(step, rows - first)};
          A* scores = tiles.scores(tile);
          internal::softmax_rows(scores, tile.rows, problem_.kv_blocks);
          attend(tile, scores);
        }
      }
    }
  }

  void add_prefix_rows(TableRows& rows) const {
    std::vector<int32_t> all(problem_.kv_blocks);
    std::iota(all.begin(), all.end(), 0);
    for (int64_t bh = 0; bh < batch_heads_; ++bh) {
      for (int64_t i = 0; i < rule_.prefix_rows; ++i) {
        rows.add(0, bh * problem_.query_blocks + i, all);
      }
    }
  }

  // The k best of the candidates behind the exempt blocks.
  void choose(const A* scores, const std::vector<int32_t>& candidates, RowSelector<A>& selector,
              std::vector<A>& gathered, std::vector<int32_t>& ids) const {
    const int64_t size = static_cast<int64_t>(candidates.size());
    const int64_t count = std::min(rule_.selected(), size), exempt = rule_.exempt();
    gathered.resize(size);
    for (int64_t i = 0; i < size; ++i) gathered[i] = scores[candidates[i]];
    ids.resize(exempt + count);
    std::iota(ids.begin(), ids.begin() + exempt, 0);
    selector.select(gathered.data(), size, count, ids.data() + exempt);
    for (int64_t i = exempt; i < exempt + count; ++i) ids[i] = candidates[ids[i]];
  }

  const CoarseProblem<A>& problem_;
  const DomainBudget& budget_;
  const HeldDomains held_;
  const RowRule rule_;
  A* const out_;
  const int64_t batch_heads_;
  int64_t longest_domain_ = 0;
};

}  // namespace

template <class A>
std::unique_ptr<BudgetedSelection<A>> budgeted_selection(const CoarseProblem<A>& problem, int k,
                                                         const DomainBudget& budget,
                                                         HeldDomains held, A* out) {
  return std::make_unique<CoarseBudgetedSelection<A>>(problem, k, budget, held, out);
}

template std::unique_ptr<BudgetedSelection<float>> budgeted_selection(const CoarseProblem<float>&,
                                                                      int, const DomainBudget&,
                                                                      HeldDomains, float*);
template std::unique_ptr<BudgetedSelection<double>> budgeted_selection(const CoarseProblem<double>&,
                                                                       int, const DomainBudget&,
                                                                       HeldDomains, double*);

}  // namespace sprocket::kernels
