#include <algorithm>
#include <cmath>
#include <vector>

#include "base/error.h"
#include "kernels/lanes.h"
#include "kernels/level_selection.h"
#include "kernels/row_kernels.h"

namespace sprocket::kernels {
namespace {

template <class T>
SPROCKET_INLINE Accumulator<T> dot(const T* x, const T* y, int64_t count) {
  using A = Accumulator<T>;
  Lanes<A> sums{};
  for_each_vector<A>(count, SPROCKET_STEP({ sums += load(x + j, lanes) * load(y + j, lanes); }));
  return sum_of_lanes<A>(sums);
}

template <class T>
struct NormsKernel {
  SPROCKET_INLINE static void run(const T* x, int64_t row_stride, int64_t rows, int64_t head_dim,
                                  Accumulator<T>* norms) {
    for (int64_t row = 0; row < rows; ++row) {
      const T* at = x + row * row_stride;
      norms[row] = std::sqrt(dot(at, at, head_dim));
    }
  }
};

// mean = mean cosine of the first and last row of every group
template <class T>
struct GroupCosineKernel {
  using A = Accumulator<T>;
  SPROCKET_INLINE static void run(const T* x, int64_t row_stride, int64_t rows, int64_t width,
                                  int64_t head_dim, const A* norms, double* mean) {
    double sum = 0;
    int64_t groups = 0;
    for (int64_t first = 0; first < rows; first += width, ++groups) {
      const int64_t last = std::min(first + width, rows) - 1;
      if (first == last) {
        sum += 1;
        continue;
      }
      const A product = dot(x + first * row_stride, x + last * row_stride, head_dim);
      const A scale = norms[first] * norms[last];
      if (scale != 0) sum += static_cast<double>(product / scale);
    }
    *mean = sum / static_cast<double>(groups);
  }
};

}  // namespace

template <class T>
void similarity_caps(HeadView<const T> k, std::span<const int64_t> block_offsets, int batch,
                     int heads, int head_dim, std::span<const int> widths,
                     std::span<const double> thresholds, uint8_t* caps, int threads) {
  using A = Accumulator<T>;
  SPROCKET_CHECK_EQ(widths.size(), thresholds.size() + 1);
  const int64_t blocks = static_cast<int64_t>(block_offsets.size()) - 1;
  const int64_t dim = head_dim;
#pragma omp parallel num_threads(threads)
  {
    std::vector<A> norms;
#pragma omp for collapse(3)
    for (int64_t b = 0; b < batch; ++b) {
      for (int64_t h = 0; h < heads; ++h) {
        for (int64_t block = 0; block < blocks; ++block) {
          const int64_t rows = block_offsets[block + 1] - block_offsets[block];
          const T* x = k.row(b, block_offsets[block] - block_offsets[0], h);
          uint8_t& cap = caps[(b * heads + h) * blocks + block];
          cap = 1;
          if (rows == 0) continue;
          norms.resize(rows);
          run_on_isa<NormsKernel<T>>(x, k.row_stride, rows, dim, norms.data());
          for (size_t level = widths.size(); level > 1 && cap == 1; --level) {
            double mean = 0;
            run_on_isa<GroupCosineKernel<T>>(x, k.row_stride, rows,
                                             static_cast<int64_t>(widths[level - 1]), dim,
                                             static_cast<const A*>(norms.data()), &mean);
            if (mean > thresholds[level - 2]) cap = static_cast<uint8_t>(level);
          }
        }
      }
    }
  }
}

#define SPROCKET_INSTANTIATE(T)                                                                \
  template void similarity_caps<T>(HeadView<const T>, std::span<const int64_t>, int, int, int, \
                                   std::span<const int>, std::span<const double>, uint8_t*, int);
SPROCKET_INSTANTIATE(double)
SPROCKET_INSTANTIATE(float)
SPROCKET_INSTANTIATE(BFloat16)

}  // namespace sprocket::kernels
