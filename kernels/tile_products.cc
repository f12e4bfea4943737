#include "kernels/tile_products.h"

#include <libxsmm.h>

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
  Functions& known = known_[rows - 1][columns / 16 - 1];
  if (!known.made) {
    known = {true, make(scores_extent()), make(outputs_extent()), make(key_gradients_extent())};
  }
  current_ = known;
}

// LIBXSMM's matrices are column-major: its A is our right operand, its B our left one.
template <class Packed>
auto TileProducts<Packed>::make(const Extent& extent) -> Function {
  const auto [n, m, k, left_is_transposed, accumulate] = extent;
  const float alpha = 1, beta = accumulate ? 1 : 0;
  const int prefetch = LIBXSMM_GEMM_PREFETCH_AL2BL2_VIA_C;
  const int lda = m, ldb = left_is_transposed ? n : k, ldc = m;
  int flags = left_is_transposed ? LIBXSMM_GEMM_FLAG_TRANS_B : LIBXSMM_GEMM_FLAG_NONE;
  if constexpr (kPairs) {
    flags |= LIBXSMM_GEMM_FLAG_VNNI_A;
    const auto function = reinterpret_cast<Function>(
        libxsmm_bsmmdispatch(m, n, k, &lda, &ldb, &ldc, &alpha, &beta, &flags, &prefetch));
    SPROCKET_CHECK(function != nullptr, "LIBXSMM made no bf16 kernel for {} x {} x {}", m, n, k);
    return function;
  } else {
    if (current_isa() == Isa::kBaseline) return nullptr;
    return reinterpret_cast<Function>(
        libxsmm_smmdispatch(m, n, k, &lda, &ldb, &ldc, &alpha, &beta, &flags, &prefetch));
  }
}

template <class Packed>
void TileProducts<Packed>::call(Function function, const Extent& extent, const Packed* left,
                                const Packed* right, float* c, const Prefetch& next) {
  if (function != nullptr) {
    function(right, left, c, next.like_right == nullptr ? right : next.like_right,
             next.like_result == nullptr ? c : next.like_result, c);
    return;
  }
  if constexpr (!kPairs) {
    const int64_t row = extent.left_is_transposed ? 1 : extent.k;
    const int64_t column = extent.left_is_transposed ? extent.n : 1;
    run_on_isa<PlainProduct>(left, row, column, right, c, extent.n, extent.m, extent.k,
                             extent.accumulate);
  }
}

template <class Packed>
void TileProducts<Packed>::scores(const Packed* left, const Packed* right, float* c,
                                  const Prefetch& next) const {
  call(current_.scores, scores_extent(), left, right, c, next);
}

template <class Packed>
void TileProducts<Packed>::outputs(const Packed* left, const Packed* right, float* c,
                                   const Prefetch& next) const {
  call(current_.outputs, outputs_extent(), left, right, c, next);
}

template <class Packed>
void TileProducts<Packed>::key_gradients(const Packed* left, const Packed* right, float* c,
                                         const Prefetch& next) const {
  call(current_.key_gradients, key_gradients_extent(), left, right, c, next);
}

template class TileProducts<float>;
template class TileProducts<BFloat16>;

void transpose_words(const void* from, int rows, int columns, int from_stride, void* to,
                     int to_stride) {
  libxsmm_otrans(to, from, 4, columns, rows, from_stride, to_stride);
}

}  // namespace sprocket::kernels
