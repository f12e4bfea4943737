#include <algorithm>
#include <vector>

#include "base/error.h"
#include "kernels/coarse_attention_rows.h"
#include "kernels/coarse_attention_tiles.h"
#include "kernels/panel_product.h"

namespace sprocket::kernels {
namespace {

using internal::RowTile;
using internal::SoftmaxRow;

constexpr int64_t kGradientRows = 128;     // of one term of the sums over query blocks
constexpr int64_t kGradientColumns = 128;  // KV blocks of one task

// What both passes need to know of a query row.
template <class A>
struct RowState {
  SoftmaxRow<A> softmax;
  A delta;
};

template <class A>
class CoarseBackward {
 public:
  CoarseBackward(const CoarseProblem<A>& problem, const A* dout, A* dqc, A* dkc, A* dvc)
      : problem_(problem),
        heads_(static_cast<int64_t>(problem.batch) * problem.heads),
        nq_(problem.query_blocks),
        nk_(problem.kv_blocks),
        dim_(problem.head_dim),
        dout_(dout),
        dqc_(dqc),
        dkc_(dkc),
        dvc_(dvc),
        states_(heads_ * nq_) {}

  // Query rows: softmax, delta and dq.
  void query_pass() {
    const int64_t step = internal::tile_rows(2 * sizeof(A) * nk_, heads_ * nq_, problem_.threads);
#pragma omp parallel num_threads(problem_.threads)
    {
      AlignedBuffer<A> p_buffer, ds_buffer;
#pragma omp for collapse(2) schedule(dynamic)
      for (int64_t bh = 0; bh < heads_; ++bh) {
        for (int64_t first = 0; first < nq_; first += step) {
          const RowTile tile{bh, first, std::min(step, nq_ - first)};
          A* p = p_buffer.reserve(tile.rows * nk_);
          A* ds = ds_buffer.reserve(tile.rows * nk_);
          multiply(tile, 0, nk_, p, ds);
          for (int64_t i = 0; i < tile.rows; ++i) {
            RowState<A>& state = states_[bh * nq_ + first + i];
            run_on_isa<internal::RowSoftmaxKernel<A>>(p + i * nk_, nk_, &state.softmax);
            run_on_isa<internal::RowDeltaKernel<A>>(static_cast<const A*>(p + i * nk_),
                                                    static_cast<const A*>(ds + i * nk_), nk_,
                                                    &state.delta);
            run_on_isa<internal::RowGradientKernel<A>>(static_cast<const A*>(p + i * nk_),
                                                       ds + i * nk_, nk_, state.delta);
          }
          panel_product<A>({ds, 0, nk_, 1}, {problem_.kc + bh * nk_ * dim_, 0, dim_, 1}, 1,
                           tile.rows, dim_, nk_, problem_.scale, dqc_ + (bh * nq_ + first) * dim_,
                           1);
        }
      }
    }
  }

  // KV blocks: dk and dv, in ascending tiles of query rows.
  void key_pass() {
#pragma omp parallel num_threads(problem_.threads)
    {
      const int64_t tile_size = kGradientRows * kGradientColumns;
      AlignedBuffer<A> p_buffer, ds_buffer, part_buffer;
      A* p = p_buffer.reserve(tile_size);
      A* ds = ds_buffer.reserve(tile_size);
      A* part = part_buffer.reserve(kGradientColumns * dim_);
#pragma omp for collapse(2) schedule(dynamic)
      for (int64_t bh = 0; bh < heads_; ++bh) {
        for (int64_t column = 0; column < nk_; column += kGradientColumns) {
          const int64_t columns = std::min(kGradientColumns, nk_ - column);
          const int64_t at = (bh * nk_ + column) * dim_;
          std::fill_n(dkc_ + at, columns * dim_, A{0});
          std::fill_n(dvc_ + at, columns * dim_, A{0});
          for (int64_t first = 0; first < nq_; first += kGradientRows) {
            const RowTile tile{bh, first, std::min(kGradientRows, nq_ - first)};
            const A* dout = dout_ + (bh * nq_ + first) * dim_;
            const A* q = problem_.qc + (bh * nq_ + first) * dim_;
            multiply(tile, column, columns, p, ds);
            for (int64_t i = 0; i < tile.rows; ++i) {
              const RowState<A>& state = states_[bh * nq_ + first + i];
              run_on_isa<internal::RowProbabilityKernel<A>>(p + i * columns, columns,
                                                            state.softmax);
              run_on_isa<internal::RowGradientKernel<A>>(static_cast<const A*>(p + i * columns),
                                                         ds + i * columns, columns, state.delta);
            }
            add_product(p, columns, dout, tile.rows, 1, part, dvc_ + at);
            add_product(ds, columns, q, tile.rows, problem_.scale, part, dkc_ + at);
          }
        }
      }
    }
  }

 private:
  // scores and dp = dout v^T of some columns
  void multiply(const RowTile& tile, int64_t column, int64_t columns, A* scores, A* dp) const {
    const int64_t row = (tile.batch_head * nq_ + tile.first) * dim_;
    const int64_t key = (tile.batch_head * nk_ + column) * dim_;
    panel_product<A>({problem_.qc + row, 0, dim_, 1}, {problem_.kc + key, 0, 1, dim_}, 1, tile.rows,
                     columns, dim_, problem_.scale, scores, 1);
    panel_product<A>({dout_ + row, 0, dim_, 1}, {problem_.vc + key, 0, 1, dim_}, 1, tile.rows,
                     columns, dim_, 1, dp, 1);
  }

  // sum += scale * weights^T rows
  void add_product(const A* weights, int64_t columns, const A* rows, int64_t count, double scale,
                   A* part, A* sum) const {
    panel_product<A>({weights, 0, 1, columns}, {rows, 0, dim_, 1}, 1, columns, dim_, count, scale,
                     part, 1);
    for (int64_t i = 0; i < columns * dim_; ++i) sum[i] += part[i];
  }

  const CoarseProblem<A>& problem_;
  const int64_t heads_, nq_, nk_, dim_;
  const A* const dout_;
  A *const dqc_, *const dkc_, *const dvc_;
  std::vector<RowState<A>> states_;
};

}  // namespace

template <class A>
void coarse_attend_backward(const CoarseProblem<A>& problem, const A* dout, A* dqc, A* dkc,
                            A* dvc) {
  internal::check_problem(problem);
  SPROCKET_CHECK(problem.vc != nullptr, "gradients need vc");
  CoarseBackward<A> backward(problem, dout, dqc, dkc, dvc);
  backward.query_pass();
  backward.key_pass();
}

template void coarse_attend_backward<float>(const CoarseProblem<float>&, const float*, float*,
                                            float*, float*);
template void coarse_attend_backward<double>(const CoarseProblem<double>&, const double*, double*,
                                             double*, double*);

}  // namespace sprocket::kernels
