#include "kernels/block_pooling.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "base/error.h"
#include "kernels/lanes.h"
#include "kernels/panel_product.h"

namespace sprocket::kernels {
namespace {

template <class T>
struct MeanKernel {
  using A = Accumulator<T>;
  SPROCKET_INLINE static Lanes<A> sum(const T* x, int64_t row_stride, int64_t rows, int64_t count) {
    Lanes<A> total{};
    if (count == kLanes<A>) {
      for (int64_t row = 0; row < rows; ++row) total += load(x + row * row_stride);
    } else {
      for (int64_t row = 0; row < rows; ++row) total += load_first(x + row * row_stride, count);
    }
    return total;
  }
  SPROCKET_INLINE static void run(const T* x, int64_t row_stride, int64_t rows, int head_dim,
                                  A* mean) {
    for (int64_t d = 0; d < head_dim; d += kLanes<A>) {
      const int64_t count = std::min<int64_t>(kLanes<A>, head_dim - d);
      store_first(mean + d, sum(x + d, row_stride, rows, count) / static_cast<A>(rows), count);
    }
  }
};

template <class A>
struct AddRowKernel {
  SPROCKET_INLINE static void run(const A* mean_gradient, int64_t rows, int head_dim, A* dx,
                                  int64_t row_stride) {
    for (int64_t d = 0; d < head_dim; d += kLanes<A>) {
      const int64_t count = std::min<int64_t>(kLanes<A>, head_dim - d);
      const Lanes<A> share = load_first(mean_gradient + d, count) / static_cast<A>(rows);
      for (int64_t row = 0; row < rows; ++row) {
        A* to = dx + row * row_stride + d;
        store_first(to, load_first(to, count) + share, count);
      }
    }
  }
};

template <class A>
struct SoftmaxKernel {
  SPROCKET_INLINE static void run(A* row, int64_t count) {
    const int64_t whole = count - count % kLanes<A>;
    const int64_t rest = count - whole;
    A largest = -std::numeric_limits<A>::infinity();
    for (int64_t j = 0; j < count; ++j) largest = row[j] > largest ? row[j] : largest;
    Lanes<A> sums{};
    for (int64_t j = 0; j < whole; j += kLanes<A>) {
      const Lanes<A> e = exp_of_lanes(load(row + j) - largest);
      store(row + j, e);
      sums += e;
    }
    if (rest > 0) {
      store_first(row + whole, exp_of_lanes(load_first(row + whole, rest) - largest), rest);
      sums += load_first(row + whole, rest);
    }
    const A inverse = 1 / sum_of_lanes<A>(sums);
    for (int64_t j = 0; j < count; ++j) row[j] *= inverse;
  }
};

// dp becomes ds = p * (dp - sum(p * dp)).
template <class A>
struct SoftmaxGradientKernel {
  SPROCKET_INLINE static void run(const A* p, A* dp, int64_t count) {
    const int64_t whole = count - count % kLanes<A>;
    Lanes<A> sums{};
    for (int64_t j = 0; j < whole; j += kLanes<A>) sums += load(p + j) * load(dp + j);
    sums += load_first(p + whole, count - whole) * load_first(dp + whole, count - whole);
    const A delta = sum_of_lanes<A>(sums);
    for (int64_t j = 0; j < count; ++j) dp[j] = p[j] * (dp[j] - delta);
  }
};

}  // namespace

template <class T>
void pool_blocks(HeadView<const T> x, std::span<const int64_t> offsets, int batch, int heads,
                 int head_dim, Accumulator<T>* pooled, int threads) {
  SPROCKET_CHECK_GE(offsets.size(), 1u);
  const int64_t blocks = static_cast<int64_t>(offsets.size()) - 1;
#pragma omp parallel for collapse(3) num_threads(threads)
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t h = 0; h < heads; ++h) {
      for (int64_t i = 0; i < blocks; ++i) {
        Accumulator<T>* mean = pooled + ((b * heads + h) * blocks + i) * head_dim;
        const int64_t rows = offsets[i + 1] - offsets[i];
        if (rows > 0) {
          run_on_isa<MeanKernel<T>>(static_cast<const T*>(x.row(b, offsets[i], h)), x.row_stride,
                                    rows, head_dim, mean);
        } else {
          std::fill_n(mean, head_dim, Accumulator<T>{});
        }
      }
    }
  }
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
    for (int64_t h = 0; h < heads; ++h) {
      for (int64_t i = 0; i < blocks; ++i) {
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

template <class A>
void coarse_softmax(A* scores, int64_t rows, int kv_blocks, int threads) {
#pragma omp parallel for num_threads(threads)
  for (int64_t row = 0; row < rows; ++row) {
    run_on_isa<SoftmaxKernel<A>>(scores + row * kv_blocks, static_cast<int64_t>(kv_blocks));
  }
}

template <class A>
void coarse_output(const A* p, const A* vc, int batch_heads, int query_blocks, int kv_blocks,
                   int head_dim, A* out, int threads) {
  const int64_t p_size = static_cast<int64_t>(query_blocks) * kv_blocks;
  const int64_t kv_size = static_cast<int64_t>(kv_blocks) * head_dim;
  panel_product<A>({p, p_size, kv_blocks, 1}, {vc, kv_size, head_dim, 1}, batch_heads, query_blocks,
                   head_dim, kv_blocks, 1, out, threads);
}

template <class A>
void coarse_backward(const A* qc, const A* kc, const A* vc, const A* p, const A* dout,
                     int batch_heads, int query_blocks, int kv_blocks, int head_dim, double scale,
                     A* dqc, A* dkc, A* dvc, int threads) {
  const int64_t q_size = static_cast<int64_t>(query_blocks) * head_dim;
  const int64_t kv_size = static_cast<int64_t>(kv_blocks) * head_dim;
  const int64_t p_size = static_cast<int64_t>(query_blocks) * kv_blocks;
  const int64_t rows = static_cast<int64_t>(batch_heads) * query_blocks;

  panel_product<A>({p, p_size, 1, kv_blocks}, {dout, q_size, head_dim, 1}, batch_heads, kv_blocks,
                   head_dim, query_blocks, 1, dvc, threads);
  std::vector<A> ds(batch_heads * p_size);
  panel_product<A>({dout, q_size, head_dim, 1}, {vc, kv_size, 1, head_dim}, batch_heads,
                   query_blocks, kv_blocks, head_dim, 1, ds.data(), threads);
#pragma omp parallel for num_threads(threads)
  for (int64_t row = 0; row < rows; ++row) {
    run_on_isa<SoftmaxGradientKernel<A>>(p + row * kv_blocks, ds.data() + row * kv_blocks,
                                         static_cast<int64_t>(kv_blocks));
  }
  panel_product<A>({ds.data(), p_size, kv_blocks, 1}, {kc, kv_size, head_dim, 1}, batch_heads,
                   query_blocks, head_dim, kv_blocks, scale, dqc, threads);
  panel_product<A>({ds.data(), p_size, 1, kv_blocks}, {qc, q_size, head_dim, 1}, batch_heads,
                   kv_blocks, head_dim, query_blocks, scale, dkc, threads);
}

#define SPROCKET_INSTANTIATE_POOLING(T)                                                            \
  template void pool_blocks<T>(HeadView<const T>, std::span<const int64_t>, int, int, int,         \
                               Accumulator<T>*, int);                                              \
  template void add_pooling_gradient<T>(const Accumulator<T>*, std::span<const int64_t>, int, int, \
                                        int, HeadView<Accumulator<T>>, int);
SPROCKET_INSTANTIATE_POOLING(double)
SPROCKET_INSTANTIATE_POOLING(float)
SPROCKET_INSTANTIATE_POOLING(BFloat16)

#define SPROCKET_INSTANTIATE_COARSE(A)                                                         \
  template void coarse_scores<A>(const A*, const A*, int, int, int, int, double, A*, int);     \
  template void coarse_softmax<A>(A*, int64_t, int, int);                                      \
  template void coarse_output<A>(const A*, const A*, int, int, int, int, A*, int);             \
  template void coarse_backward<A>(const A*, const A*, const A*, const A*, const A*, int, int, \
                                   int, int, double, A*, A*, A*, int);
SPROCKET_INSTANTIATE_COARSE(float)
SPROCKET_INSTANTIATE_COARSE(double)

}  // namespace sprocket::kernels
