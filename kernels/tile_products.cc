#include "kernels/tile_products.h"

#include <libxsmm.h>

#include <type_traits>

#include "base/error.h"
#include "kernels/lanes.h"

namespace sprocket::kernels {
namespace {

struct PlainProduct {
  SPROCKET_INLINE static void run(const float* left, int64_t left_row, int64_t left_column,
                                  const float* right, float* c, int n, int m, int k,
                                  bool accumulate) {
    constexpr int kRows = 4;
    for (int column = 0; column < m; column += 16) {
      for (int row = 0; row < n; row += kRows) {
        const int rows = n - row < kRows ? n - row : kRows;
        Lanes<float> sums[kRows] = {};
        if (accumulate) {
          for (int i = 0; i < rows; ++i) sums[i] = load(c + int64_t{row + i} * m + column);
        }
        for (int l = 0; l < k; ++l) {
          const Lanes<float> b = load(right + int64_t{l} * m + column);
#pragma GCC unroll 4
          for (int i = 0; i < kRows; ++i) {
            const int source = i < rows ? row + i : row;
            sums[i] += left[source * left_row + l * left_column] * b;
          }
        }
        for (int i = 0; i < rows; ++i) store(c + int64_t{row + i} * m + column, sums[i]);
      }
    }
  }
};

}  // namespace

template <class Packed>
void TileProducts<Packed>::select(int rows, int columns) {
  if (rows == rows_ && columns == columns_) return;
  rows_ = rows;
  columns_ = columns;
  constexpr bool kPairs = std::is_same_v<Packed, BFloat16>;
  scores_ = make(rows, columns, dim_, false, false);
  outputs_ = make(dim_, columns, kPairs ? (rows + 1) / 2 * 2 : rows, !kPairs, true);
  key_gradients_ = make(rows, dim_, columns, false, true);
}

// LIBXSMM's matrices are column-major: its A is our right operand, its B our left one.
template <class Packed>
auto TileProducts<Packed>::make(int n, int m, int k, bool left_is_transposed, bool accumulate) const
    -> Product {
  Product product{nullptr,   n, m, k, left_is_transposed ? 1 : k, left_is_transposed ? n : 1,
                  accumulate};
  const float alpha = 1, beta = accumulate ? 1 : 0;
  const int prefetch = LIBXSMM_PREFETCH_NONE;
  const int lda = m, ldb = left_is_transposed ? n : k, ldc = m;
  int flags = left_is_transposed ? LIBXSMM_GEMM_FLAG_TRANS_B : LIBXSMM_GEMM_FLAG_NONE;
  if constexpr (std::is_same_v<Packed, BFloat16>) {
    flags |= LIBXSMM_GEMM_FLAG_VNNI_A;
    product.function = reinterpret_cast<Function>(
        libxsmm_bsmmdispatch(m, n, k, &lda, &ldb, &ldc, &alpha, &beta, &flags, &prefetch));
    SPROCKET_CHECK(product.function != nullptr, "LIBXSMM made no bf16 kernel for {} x {} x {}", m,
                   n, k);
  } else if (current_isa() != Isa::kBaseline) {
    product.function = reinterpret_cast<Function>(
        libxsmm_smmdispatch(m, n, k, &lda, &ldb, &ldc, &alpha, &beta, &flags, &prefetch));
  }
  return product;
}

template <class Packed>
void TileProducts<Packed>::call(const Product& product, const Packed* left, const Packed* right,
                                float* c) const {
  if (product.function != nullptr) {
    product.function(right, left, c);
    return;
  }
  if constexpr (std::is_same_v<Packed, float>) {
    run_on_isa<PlainProduct>(left, product.left_row, product.left_column, right, c, product.n,
                             product.m, product.k, product.accumulate);
  }
}

template class TileProducts<float>;
template class TileProducts<BFloat16>;

void transpose_words(const void* from, int rows, int columns, int from_stride, void* to,
                     int to_stride) {
  libxsmm_otrans(to, from, 4, columns, rows, from_stride, to_stride);
}

}  // namespace sprocket::kernels
