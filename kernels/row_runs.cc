#include "kernels/row_runs.h"

#include <cstring>

namespace sprocket::kernels {

template <class T>
void pack_rows(HeadView<const T> x, std::span<const RowRun> runs, int head_dim, T* packed,
               int threads) {
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
  for (const RowRun& run : runs) {
    const T* from = x.row(run.batch, run.first_row, run.head);
    T* to = packed + run.packed_row * head_dim;
    for (int64_t row = 0; row < run.rows; ++row) {
      std::memcpy(to + row * head_dim, from + row * x.row_stride, sizeof(T) * head_dim);
    }
  }
}

template <class T>
void add_packed_rows(const T* packed, std::span<const RowRun> runs, int head_dim,
                     HeadView<Accumulator<T>> sums, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
  for (const RowRun& run : runs) {
    const T* from = packed + run.packed_row * head_dim;
    Accumulator<T>* to = sums.row(run.batch, run.first_row, run.head);
    for (int64_t row = 0; row < run.rows; ++row) {
      for (int d = 0; d < head_dim; ++d) {
        to[row * sums.row_stride + d] += static_cast<Accumulator<T>>(from[row * head_dim + d]);
      }
    }
  }
}

#define SPROCKET_INSTANTIATE(T)                                                         \
  template void pack_rows<T>(HeadView<const T>, std::span<const RowRun>, int, T*, int); \
  template void add_packed_rows<T>(const T*, std::span<const RowRun>, int,              \
                                   HeadView<Accumulator<T>>, int);
SPROCKET_INSTANTIATE(double)
SPROCKET_INSTANTIATE(float)
SPROCKET_INSTANTIATE(BFloat16)
#undef SPROCKET_INSTANTIATE

}  // namespace sprocket::kernels
