// Second stage of sums over rows: adds partial sums in ascending order.
#pragma once

#include <cstdint>

#include "base/stream.h"

namespace sprocket::kernels::cuda {

inline constexpr int kMaxRowSums = 2;

// Where the sums go: output o of sample b is overwritten at to[o] + b * sample_stride; with stride
// 0 the sum over all samples at to[o].
struct RowSums {
  float* to[kMaxRowSums] = {};
  int count = 0;
  int64_t sample_stride = 0;
};

// Bytes of the partial sums of `sums` outputs of [dim] over [batch, rows]: one of dim floats for
// every kPartialRows rows (row_layout.h) and output.
int64_t row_partials_bytes(int64_t batch, int64_t rows, int64_t dim, int sums);

// partials: [batch * chunks][sums.count][dim], the chunks those of RowChunks{batch, rows,
// kPartialRows}. A sum without terms is 0.
void add_row_partials(const float* partials, int64_t batch, int64_t rows, int64_t dim,
                      const RowSums& sums, StreamView stream);

}  // namespace sprocket::kernels::cuda
