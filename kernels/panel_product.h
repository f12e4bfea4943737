// Small products whose elements are bitwise independent of the tiling, for block scores.
#pragma once

#include <cstdint>

namespace sprocket::kernels {

// Element (batch, i, j) is data[batch * batch_stride + i * row_stride + j * column_stride].
template <class A>
struct MatrixBatch {
  const A* data = nullptr;
  int64_t batch_stride = 0;
  int64_t row_stride = 0;
  int64_t column_stride = 0;
};

// c[batch, i, j] = alpha * sum_l a[batch, i, l] * b[batch, l, j]; c is contiguous [batches, m, n]
// and overwritten. A is float or double. Every element is one chain of multiply-adds over ascending
// l, whatever m, n, its place in the tiles and `threads`; k == 0 gives zeros.
template <class A>
void panel_product(MatrixBatch<A> a, MatrixBatch<A> b, int64_t batches, int64_t m, int64_t n,
                   int64_t k, double alpha, A* c, int threads);

}  // namespace sprocket::kernels
