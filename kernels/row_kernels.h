// What the row kernels of elementwise.h share: loops over the vectors of a row, and sums over rows.
#pragma once

#include <algorithm>
#include <array>
#include <vector>

#include "kernels/elementwise.h"
#include "kernels/lanes.h"

namespace sprocket::kernels {

// All lanes of a vector, or the first ones at the end of a row.
struct AllLanes {};
struct FirstLanes {
  int64_t count;
};

template <class T>
SPROCKET_INLINE auto load(const T* from, AllLanes) {
  return load(from);
}
template <class T>
SPROCKET_INLINE auto load(const T* from, FirstLanes lanes) {
  return load_first(from, lanes.count);
}
template <class T, class V>
SPROCKET_INLINE void store(T* to, V value, AllLanes) {
  store(to, value);
}
template <class T, class V>
SPROCKET_INLINE void store(T* to, V value, FirstLanes lanes) {
  store_first(to, value, lanes.count);
}

// step(j, lanes) for the vectors of A that cover [0, count). The step must be always_inline, or it
// would be compiled for the baseline instruction set.
template <class A, class Step>
SPROCKET_INLINE void for_each_vector(int64_t count, Step step) {
  int64_t j = 0;
  for (; j + kLanes<A> <= count; j += kLanes<A>) step(j, AllLanes{});
  if (j < count) step(j, FirstLanes{count - j});
}
#define SPROCKET_STEP(...) [&](int64_t j, auto lanes) __attribute__((always_inline)) __VA_ARGS__

// Runs chunk(sample, first_row, row_count, partial) for every kSumRows rows of every sample,
// partial being kOutputs zeroed rows of dim, and adds the partials in ascending order: output o of
// sample b is overwritten at outputs[o] + b * sample_stride, or, with stride 0, the sum over all
// samples at outputs[o].
template <class A, size_t kOutputs, class Chunk>
void sum_over_rows(int64_t batch, int64_t rows, int64_t dim, std::array<A*, kOutputs> outputs,
                   int64_t sample_stride, int threads, Chunk chunk) {
  const int64_t chunks = (rows + kSumRows - 1) / kSumRows;
  const int64_t width = static_cast<int64_t>(kOutputs) * dim;
  std::vector<A> partials(batch * chunks * width);
#pragma omp parallel for collapse(2) num_threads(threads)
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t c = 0; c < chunks; ++c) {
      chunk(b, c * kSumRows, std::min(kSumRows, rows - c * kSumRows),
            partials.data() + (b * chunks + c) * width);
    }
  }
  const int64_t sums = sample_stride == 0 ? 1 : batch;
  const int64_t terms = sample_stride == 0 ? batch * chunks : chunks;
#pragma omp parallel for collapse(2) num_threads(threads)
  for (int64_t s = 0; s < sums; ++s) {
    for (size_t o = 0; o < kOutputs; ++o) {
      A* out = outputs[o] + s * sample_stride;
      std::fill_n(out, dim, A{0});
      for (int64_t term = 0; term < terms; ++term) {
        const A* partial =
            partials.data() + (s * terms + term) * width + static_cast<int64_t>(o) * dim;
        for (int64_t j = 0; j < dim; ++j) out[j] += partial[j];
      }
    }
  }
}

// chunk(sample, first_row, row_count) for every kSumRows rows of every sample.
template <class Chunk>
void for_row_chunks(int64_t batch, int64_t rows, int threads, Chunk chunk) {
  const int64_t chunks = (rows + kSumRows - 1) / kSumRows;
#pragma omp parallel for collapse(2) num_threads(threads)
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t c = 0; c < chunks; ++c) {
      chunk(b, c * kSumRows, std::min(kSumRows, rows - c * kSumRows));
    }
  }
}

}  // namespace sprocket::kernels
