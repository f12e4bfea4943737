#include <algorithm>
#include <numeric>

#include "kernels/coarse_attention_tiles.h"

namespace sprocket::kernels::internal {
namespace {

template <class A>
class BudgetedSelection {
 public:
  BudgetedSelection(const CoarseProblem<A>& problem, const CoarseSelection& selection, A* out)
      : problem_(problem),
        budget_(*selection.budget),
        rule_(problem, selection.k),
        out_(out),
        domains_(domains_of_call(budget_, problem.first_query_block, problem.query_blocks,
                                 problem.kv_blocks)),
        group_(heads_of_group(budget_, problem.heads)),
        table_{problem.batch, problem.heads, problem.query_blocks, problem.kv_blocks, {}, {}} {}

  SegmentTable run() {
    // Rows are written where they would lie without a budget, and closed up at the end.
    const int64_t rows = table_.rows(), heads = problem_.heads, n = problem_.kv_blocks;
    table_.row_offsets.assign(rows + 1, 0);
    table_.kv_block.resize(rows == 0 ? 0 : rule_.offset(rows));
    select_prefix_rows();
    const int64_t pairs = problem_.batch * static_cast<int64_t>(domains_.size());
    const int64_t pair_bytes = std::max<int64_t>(1, heads * n * static_cast<int64_t>(sizeof(A)));
    const int64_t chunk = std::max<int64_t>(1, static_cast<int64_t>(kImportBytes) / pair_bytes);
    for (int64_t first = 0; first < pairs; first += chunk) {
      const int64_t count = std::min(chunk, pairs - first);
      masses_.assign(count * heads * n, A{0});
      candidates_.assign(count * heads, {});
      add_masses(first, count);
      choose_imports(first, count);
      select_rows(first, count);
    }
    close_up();
    return std::move(table_);
  }

 private:
  // A domain of a sample; pairs are numbered sample by sample.
  const Domain& domain_of(int64_t pair) const { return domains_[pair % domains_.size()]; }
  int64_t batch_head(int64_t pair, int64_t head) const {
    return pair / static_cast<int64_t>(domains_.size()) * problem_.heads + head;
  }
  int64_t first_row(int64_t pair) const {
    return domain_of(pair).first - problem_.first_query_block;
  }
  int64_t remote_blocks(int64_t pair) const {
    return problem_.kv_blocks - rule_.prefix_blocks() - domain_of(pair).blocks();
  }
  int32_t* ids_of(int64_t batch_head, int64_t query_block) {
    return table_.kv_block.data() + rule_.offset(batch_head * problem_.query_blocks + query_block);
  }
  int64_t rows_of_tile(int64_t all_rows) const {
    return tile_rows(ScoreTiles<A>::row_bytes(problem_, true), all_rows, problem_.threads);
  }
  void attend(ScoreTiles<A>& tiles, const RowTile& tile, A* probabilities) {
    if (out_ != nullptr) multiply_values(problem_, tile, probabilities, out_);
  }

  void select_prefix_rows() {
    const int64_t heads = table_.rows() == 0 ? 0 : int64_t{problem_.batch} * problem_.heads;
    const int64_t n = problem_.kv_blocks, prefix_rows = rule_.prefix_rows();
    const int64_t step = rows_of_tile(heads * prefix_rows);
#pragma omp parallel num_threads(problem_.threads)
    {
      ScoreTiles<A> tiles(problem_);
#pragma omp for collapse(2) schedule(dynamic)
      for (int64_t bh = 0; bh < heads; ++bh) {
        for (int64_t first = 0; first < prefix_rows; first += step) {
          const RowTile tile{bh, first, std::min(step, prefix_rows - first)};
          for (int64_t i = 0; i < tile.rows; ++i) {
            int32_t* ids = ids_of(bh, first + i);
            std::iota(ids, ids + n, 0);
            table_.row_offsets[bh * problem_.query_blocks + first + i + 1] = n;
          }
          if (out_ == nullptr) continue;
          A* scores = tiles.scores(tile);
          softmax_rows(scores, tile.rows, n);
          attend(tiles, tile, scores);
        }
      }
    }
  }

  // The first pass: the unbudgeted selection, its probabilities, and the output.
  void add_masses(int64_t first_pair, int64_t pairs) {
    const int64_t heads = problem_.heads, n = problem_.kv_blocks;
    const int64_t step = tile_rows(ScoreTiles<A>::row_bytes(problem_, true));
#pragma omp parallel num_threads(problem_.threads)
    {
      ScoreTiles<A> tiles(problem_);
      RowSelector<A> selector;
#pragma omp for collapse(2) schedule(dynamic)
      for (int64_t p = 0; p < pairs; ++p) {
        for (int64_t head = 0; head < heads; ++head) {
          const Domain& domain = domain_of(first_pair + p);
          const int64_t bh = batch_head(first_pair + p, head), begin = first_row(first_pair + p);
          A* mass = masses_.data() + (p * heads + head) * n;
          for (int64_t row = begin; row < begin + domain.blocks(); row += step) {
            const RowTile tile{bh, row, std::min(step, begin + domain.blocks() - row)};
            A* scores = tiles.selection_scores(tile);
            for (int64_t i = 0; i < tile.rows; ++i) {
              rule_.select(scores + i * n, row + i, selector, ids_of(bh, row + i));
            }
            if (ScoreTiles<A>::has_sub_blocks(problem_)) scores = tiles.scores(tile);
            softmax_rows(scores, tile.rows, n);
            for (int64_t i = 0; i < tile.rows; ++i) {
              const int32_t* ids = ids_of(bh, row + i);
              const int64_t listed = rule_.exempt() + rule_.selected();
              for (int64_t l = 0; l < listed; ++l) mass[ids[l]] += scores[i * n + ids[l]];
            }
            attend(tiles, tile, scores);
          }
        }
      }
    }
  }

  // candidates_[pair, head]: the blocks that a row of the domain may select, ascending.
  void choose_imports(int64_t first_pair, int64_t pairs) {
    const int64_t heads = problem_.heads, n = problem_.kv_blocks;
    const int64_t groups = heads == 0 ? 0 : heads / group_;
#pragma omp parallel num_threads(problem_.threads)
    {
      RowSelector<A> selector;
      std::vector<A> remote_masses;
      std::vector<int32_t> chosen;
#pragma omp for collapse(2) schedule(dynamic)
      for (int64_t p = 0; p < pairs; ++p) {
        for (int64_t g = 0; g < groups; ++g) {
          const Domain& domain = domain_of(first_pair + p);
          const int64_t remote = remote_blocks(first_pair + p), all = group_ * remote;
          const int64_t count = budget_.max_coverage.floor_times(all);
          remote_masses.clear();
          for (int64_t head = g * group_; head < (g + 1) * group_; ++head) {
            const A* mass = masses_.data() + (p * heads + head) * n;
            remote_masses.insert(remote_masses.end(), mass + rule_.prefix_blocks(),
                                 mass + domain.first);
            remote_masses.insert(remote_masses.end(), mass + domain.last, mass + n);
          }
          chosen.resize(count);
          selector.select(remote_masses.data(), all, count, chosen.data());
          auto next = chosen.begin();
          for (int64_t h = 0; h < group_; ++h) {
            auto& ids = candidates_[p * heads + g * group_ + h];
            if (rule_.competes()) ids.resize(rule_.prefix_blocks());
            std::iota(ids.begin(), ids.end(), 0);
            const int64_t before = domain.first - rule_.prefix_blocks();
            const auto own = std::lower_bound(next, chosen.end(), h * remote + before);
            const auto end = std::lower_bound(own, chosen.end(), (h + 1) * remote);
            const int64_t shift = rule_.prefix_blocks() - h * remote;
            for (; next != own; ++next) ids.push_back(static_cast<int32_t>(*next + shift));
            for (int j = domain.first; j < domain.last; ++j) ids.push_back(j);
            for (; next != end; ++next) {
              ids.push_back(static_cast<int32_t>(*next + shift + domain.blocks()));
            }
          }
        }
      }
    }
  }

  // The second pass: every row among its candidates.
  void select_rows(int64_t first_pair, int64_t pairs) {
    const int64_t heads = problem_.heads, n = problem_.kv_blocks;
    int64_t longest = 0;
    for (const Domain& domain : domains_) longest = std::max<int64_t>(longest, domain.blocks());
    const int64_t step = rows_of_tile(pairs * heads * longest);
#pragma omp parallel num_threads(problem_.threads)
    {
      ScoreTiles<A> tiles(problem_);
      RowSelector<A> selector;
      std::vector<A> gathered;
#pragma omp for collapse(3) schedule(dynamic)
      for (int64_t p = 0; p < pairs; ++p) {
        for (int64_t head = 0; head < heads; ++head) {
          for (int64_t from = 0; from < longest; from += step) {
            const int64_t rows = domain_of(first_pair + p).blocks() - from;
            if (rows <= 0) continue;
            const RowTile tile{batch_head(first_pair + p, head), first_row(first_pair + p) + from,
                               std::min(step, rows)};
            const A* scores = tiles.selection_scores(tile);
            for (int64_t i = 0; i < tile.rows; ++i) {
              select_row(scores + i * n, candidates_[p * heads + head], selector, gathered, tile,
                         tile.first + i);
            }
          }
        }
      }
    }
  }

  void select_row(const A* scores, const std::vector<int32_t>& candidates, RowSelector<A>& selector,
                  std::vector<A>& gathered, const RowTile& tile, int64_t query_block) {
    const int64_t size = static_cast<int64_t>(candidates.size());
    const int64_t count = std::min(rule_.selected(), size);
    gathered.resize(size);
    for (int64_t i = 0; i < size; ++i) gathered[i] = scores[candidates[i]];
    int32_t* ids = ids_of(tile.batch_head, query_block) + rule_.exempt();
    selector.select(gathered.data(), size, count, ids);
    for (int64_t i = 0; i < count; ++i) ids[i] = candidates[ids[i]];
    table_.row_offsets[tile.batch_head * problem_.query_blocks + query_block + 1] =
        rule_.exempt() + count;
  }

  // row_offsets[row + 1] holds the row's size.
  void close_up() {
    for (int64_t row = 0; row < table_.rows(); ++row) {
      const auto from = table_.kv_block.begin() + rule_.offset(row);
      std::copy_n(from, table_.row_offsets[row + 1],
                  table_.kv_block.begin() + table_.row_offsets[row]);
      table_.row_offsets[row + 1] += table_.row_offsets[row];
    }
    table_.kv_block.resize(table_.row_offsets.back());
  }

  const CoarseProblem<A>& problem_;
  const DomainBudget& budget_;
  const RowRule rule_;
  A* const out_;
  const std::vector<Domain> domains_;
  const int64_t group_;
  SegmentTable table_;
  std::vector<A> masses_;                         // [pairs of the chunk, heads, kv_blocks]
  std::vector<std::vector<int32_t>> candidates_;  // [pairs of the chunk, heads]
};

}  // namespace

template <class A>
SegmentTable select_with_imports(const CoarseProblem<A>& problem, const CoarseSelection& selection,
                                 A* out) {
  return BudgetedSelection<A>(problem, selection, out).run();
}

template SegmentTable select_with_imports<float>(const CoarseProblem<float>&,
                                                 const CoarseSelection&, float*);
template SegmentTable select_with_imports<double>(const CoarseProblem<double>&,
                                                  const CoarseSelection&, double*);

}  // namespace sprocket::kernels::internal
