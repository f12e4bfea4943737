#include "kernels/panel_product.h"

#include <algorithm>
#include <vector>

#include "kernels/lanes.h"

namespace sprocket::kernels {
namespace {

constexpr int kTileRows = 6;         // 6 x 2 accumulators of 64 bytes, two panel vectors, one of a
constexpr int64_t kChunkRows = 192;  // rows of one task, which packs its own panel
template <class A>
constexpr int kPanel = 2 * kLanes<A>;

template <class A, int kRows>
SPROCKET_INLINE void multiply_tile(const A* a, int64_t row_stride, int64_t column_stride,
                                   const A* panel, int64_t k, A alpha, A* out) {
  Lanes<A> sums[kRows][2] = {};
  for (int64_t l = 0; l < k; ++l) {
    const Lanes<A> b0 = load(panel + l * kPanel<A>);
    const Lanes<A> b1 = load(panel + l * kPanel<A> + kLanes<A>);
#pragma GCC unroll 8
    for (int row = 0; row < kRows; ++row) {
      const A x = a[row * row_stride + l * column_stride];
      sums[row][0] += x * b0;
      sums[row][1] += x * b1;
    }
  }
#pragma GCC unroll 8
  for (int row = 0; row < kRows; ++row) {
    store(out + row * kPanel<A>, sums[row][0] * alpha);
    store(out + row * kPanel<A> + kLanes<A>, sums[row][1] * alpha);
  }
}

template <class A>
struct TileKernel {
  SPROCKET_INLINE static void run(const A* a, int64_t row_stride, int64_t column_stride,
                                  const A* panel, int64_t k, A alpha, A* out, int rows) {
    switch (rows) {
      case 6:
        multiply_tile<A, 6>(a, row_stride, column_stride, panel, k, alpha, out);
        break;
      case 5:
        multiply_tile<A, 5>(a, row_stride, column_stride, panel, k, alpha, out);
        break;
      case 4:
        multiply_tile<A, 4>(a, row_stride, column_stride, panel, k, alpha, out);
        break;
      case 3:
        multiply_tile<A, 3>(a, row_stride, column_stride, panel, k, alpha, out);
        break;
      case 2:
        multiply_tile<A, 2>(a, row_stride, column_stride, panel, k, alpha, out);
        break;
      case 1:
        multiply_tile<A, 1>(a, row_stride, column_stride, panel, k, alpha, out);
        break;
    }
  }
};

// panel[l, 0 .. kPanel) = b[l, 0 .. columns), zeros behind.
template <class A>
void pack_panel(const A* b, int64_t row_stride, int64_t column_stride, int64_t k, int64_t columns,
                A* panel) {
  for (int64_t l = 0; l < k; ++l) {
    A* row = panel + l * kPanel<A>;
    for (int64_t j = 0; j < columns; ++j) row[j] = b[l * row_stride + j * column_stride];
    std::fill(row + columns, row + kPanel<A>, A{});
  }
}

}  // namespace

template <class A>
void panel_product(MatrixBatch<A> a, MatrixBatch<A> b, int64_t batches, int64_t m, int64_t n,
                   int64_t k, double alpha, A* c, int threads) {
  const int64_t panels = (n + kPanel<A> - 1) / kPanel<A>;
  const int64_t chunks = (m + kChunkRows - 1) / kChunkRows;
#pragma omp parallel num_threads(threads)
  {
    std::vector<A> panel(k * kPanel<A>);
    A out[kTileRows * kPanel<A>];
#pragma omp for collapse(3) schedule(dynamic)
    for (int64_t batch = 0; batch < batches; ++batch) {
      for (int64_t p = 0; p < panels; ++p) {
        for (int64_t chunk = 0; chunk < chunks; ++chunk) {
          const int64_t first_column = p * kPanel<A>;
          const int64_t columns = std::min<int64_t>(kPanel<A>, n - first_column);
          pack_panel(b.data + batch * b.batch_stride + first_column * b.column_stride, b.row_stride,
                     b.column_stride, k, columns, panel.data());
          const int64_t end = std::min(m, (chunk + 1) * kChunkRows);
          for (int64_t i = chunk * kChunkRows; i < end; i += kTileRows) {
            const int rows = static_cast<int>(std::min<int64_t>(kTileRows, end - i));
            run_on_isa<TileKernel<A>>(a.data + batch * a.batch_stride + i * a.row_stride,
                                      a.row_stride, a.column_stride,
                                      static_cast<const A*>(panel.data()), k, static_cast<A>(alpha),
                                      static_cast<A*>(out), rows);
            for (int row = 0; row < rows; ++row) {
              std::copy_n(out + row * kPanel<A>, columns,
                          c + (batch * m + i + row) * n + first_column);
            }
          }
        }
      }
    }
  }
}

template void panel_product(MatrixBatch<float>, MatrixBatch<float>, int64_t, int64_t, int64_t,
                            int64_t, double, float*, int);
template void panel_product(MatrixBatch<double>, MatrixBatch<double>, int64_t, int64_t, int64_t,
                            int64_t, double, double*, int);

}  // namespace sprocket::kernels
