#include "kernels/block_pooling.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "base/error.h"
#include "kernels/lanes.h"
#include "kernels/panel_product.h"

namespace sprocket::kernels {
namespace {

template <class T>
struct MeanKernel {
  using A = Accumulator<T>;
  // Vectors of one row lie side by side, so that strided rows are read from end to end.
  template <int kVectors>
  SPROCKET_INLINE static void mean_of_vectors(const T* x, int64_t row_stride, int64_t rows,
                                              A* mean) {
    Lanes<A> sums[kVectors] = {};
    for (int64_t row = 0; row < rows; ++row) {
#pragma GCC unroll 8
      for (int i = 0; i < kVectors; ++i) sums[i] += load(x + row * row_stride + i * kLanes<A>);
    }
#pragma GCC unroll 8
    for (int i = 0; i < kVectors; ++i) store(mean + i * kLanes<A>, sums[i] / static_cast<A>(rows));
  }
  SPROCKET_INLINE static void run(const T* x, int64_t row_stride, int64_t rows, int head_dim,
                                  A* mean) {
    int64_t d = 0;
    for (; d + 8 * kLanes<A> <= head_dim; d += 8 * kLanes<A>) {
      mean_of_vectors<8>(x + d, row_stride, rows, mean + d);
    }
    for (; d + 4 * kLanes<A> <= head_dim; d += 4 * kLanes<A>) {
      mean_of_vectors<4>(x + d, row_stride, rows, mean + d);
    }
    for (; d + kLanes<A> <= head_dim; d += kLanes<A>) {
      mean_of_vectors<1>(x + d, row_stride, rows, mean + d);
    }
    if (d == head_dim) return;
    Lanes<A> sum{};
    for (int64_t row = 0; row < rows; ++row) {
      sum += load_first(x + row * row_stride + d, head_dim - d);
    }
    store_first(mean + d, sum / static_cast<A>(rows), head_dim - d);
  }
};

// means[b, h, i] of `pieces` pieces; rows_of(i) is piece i's half-open range of rows.
template <class T, class RowsOf>
void pool_pieces(HeadView<const T> x, int64_t pieces, int batch, int heads, int head_dim,
                 Accumulator<T>* means, int threads, RowsOf rows_of) {
  // Heads innermost: they share pages.
#pragma omp parallel for collapse(3) num_threads(threads)
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t i = 0; i < pieces; ++i) {
      for (int64_t h = 0; h < heads; ++h) {
        Accumulator<T>* mean = means + ((b * heads + h) * pieces + i) * head_dim;
        const auto [first, last] = rows_of(i);
        if (last > first) {
          run_on_isa<MeanKernel<T>>(static_cast<const T*>(x.row(b, first, h)), x.row_stride,
                                    last - first, head_dim, mean);
        } else {
          std::fill_n(mean, head_dim, Accumulator<T>{});
        }
      }
    }
  }
}

template <class A>
struct AddRowKernel {
  SPROCKET_INLINE static void run(const A* mean_gradient, int64_t rows, int head_dim, A* dx,
                                  int64_t row_stride) {
    const int64_t whole = head_dim - head_dim % kLanes<A>;
    for (int64_t row = 0; row < rows; ++row) {
      A* to = dx + row * row_stride;
      for (int64_t d = 0; d < whole; d += kLanes<A>) {
        store(to + d, load(to + d) + load(mean_gradient + d) / static_cast<A>(rows));
      }
      for (int64_t d = whole; d < head_dim; ++d) {
        to[d] += mean_gradient[d] / static_cast<A>(rows);
      }
    }
  }
};

}  // namespace

template <class T>
void pool_blocks(HeadView<const T> x, std::span<const int64_t> offsets, int batch, int heads,
                 int head_dim, Accumulator<T>* pooled, int threads) {
  SPROCKET_CHECK_GE(offsets.size(), 1u);
  const int64_t blocks = static_cast<int64_t>(offsets.size()) - 1;
  pool_pieces(x, blocks, batch, heads, head_dim, pooled, threads,
              [&](int64_t i) { return std::pair(offsets[i], offsets[i + 1]); });
}

std::vector<int32_t> sub_block_counts(std::span<const int64_t> offsets, int parts, int capacity) {
  SPROCKET_CHECK(parts >= 1 && capacity >= parts && capacity % parts == 0,
                 "{} parts of blocks of {} rows", parts, capacity);
  SPROCKET_CHECK_GE(offsets.size(), 1u);
  const int64_t piece = capacity / parts;
  std::vector<int32_t> counts;
  for (size_t i = 0; i + 1 < offsets.size(); ++i) {
    const int64_t rows = offsets[i + 1] - offsets[i];
    SPROCKET_CHECK(rows >= 0 && rows <= capacity, "block {} has {} rows, more than {}", i, rows,
                   capacity);
    counts.push_back(static_cast<int32_t>((rows + piece - 1) / piece));
  }
  return counts;
}

template <class T>
void pool_sub_blocks(HeadView<const T> x, std::span<const int64_t> offsets, int parts, int capacity,
                     int batch, int heads, int head_dim, Accumulator<T>* means, int threads) {
  const std::vector<int32_t> counts = sub_block_counts(offsets, parts, capacity);
  const int64_t piece = capacity / parts;
  pool_pieces(x, static_cast<int64_t>(counts.size()) * parts, batch, heads, head_dim, means,
              threads, [&](int64_t i) {
                const int64_t end = offsets[i / parts + 1];
                const int64_t first = std::min(offsets[i / parts] + i % parts * piece, end);
                return std::pair(first, std::min(first + piece, end));
              });
}

template <class T>
void add_pooling_gradient(const Accumulator<T>* dpooled, std::span<const int64_t> offsets,
                          int batch, int heads, int head_dim, HeadView<Accumulator<T>> dx,
                          int threads) {
  using A = Accumulator<T>;
  SPROCKET_CHECK_GE(offsets.size(), 1u);
  const int64_t blocks = static_cast<int64_t>(offsets.size()) - 1;
#pragma omp parallel for collapse(3) num_threads(threads)
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t i = 0; i < blocks; ++i) {
      for (int64_t h = 0; h < heads; ++h) {
        run_on_isa<AddRowKernel<A>>(dpooled + ((b * heads + h) * blocks + i) * head_dim,
                                    offsets[i + 1] - offsets[i], head_dim, dx.row(b, offsets[i], h),
                                    dx.row_stride);
      }
    }
  }
}

template <class A>
void coarse_scores(const A* qc, const A* kc, int batch_heads, int query_blocks, int kv_blocks,
                   int head_dim, double scale, A* scores, int threads) {
  const int64_t q_size = static_cast<int64_t>(query_blocks) * head_dim;
  const int64_t kv_size = static_cast<int64_t>(kv_blocks) * head_dim;
  panel_product<A>({qc, q_size, head_dim, 1}, {kc, kv_size, 1, head_dim}, batch_heads, query_blocks,
                   kv_blocks, head_dim, scale, scores, threads);
}

#define SPROCKET_INSTANTIATE_POOLING(T)                                                            \
  template void pool_blocks<T>(HeadView<const T>, std::span<const int64_t>, int, int, int,         \
                               Accumulator<T>*, int);                                              \
  template void pool_sub_blocks<T>(HeadView<const T>, std::span<const int64_t>, int, int, int,     \
                                   int, int, Accumulator<T>*, int);                                \
  template void add_pooling_gradient<T>(const Accumulator<T>*, std::span<const int64_t>, int, int, \
                                        int, HeadView<Accumulator<T>>, int);
SPROCKET_INSTANTIATE_POOLING(double)
SPROCKET_INSTANTIATE_POOLING(float)
SPROCKET_INSTANTIATE_POOLING(BFloat16)
#undef SPROCKET_INSTANTIATE_POOLING

template void coarse_scores<float>(const float*, const float*, int, int, int, int, double, float*,
                                   int);
template void coarse_scores<double>(const double*, const double*, int, int, int, int, double,
                                    double*, int);

}  // namespace sprocket::kernels
