#include "kernels/pyramid.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "base/error.h"
#include "kernels/row_means.h"

namespace sprocket::kernels {
namespace {

// Means of `width` adjacent rows, the last one of what is left.
template <class T>
struct GroupMeansKernel {
  SPROCKET_INLINE static void run(const T* x, int64_t row_stride, int64_t rows, int64_t width,
                                  int64_t head_dim, T* means, int64_t mean_stride) {
    for (int64_t first = 0; first < rows; first += width, means += mean_stride) {
      const int64_t count = std::min(width, rows - first);
      mean_of_rows(x + first * row_stride, row_stride, count, head_dim,
                   static_cast<Accumulator<T>>(count), means);
    }
  }
};

template <class A>
struct AddGroupsKernel {
  SPROCKET_INLINE static void run(const A* d_means, int64_t mean_stride, int64_t rows,
                                  int64_t width, int64_t head_dim, A* dx, int64_t row_stride) {
    for (int64_t first = 0; first < rows; first += width, d_means += mean_stride) {
      const int64_t count = std::min(width, rows - first);
      add_share_to_rows(d_means, head_dim, static_cast<A>(count), dx + first * row_stride,
                        row_stride, count);
    }
  }
};

// body(sample, head, block), in parallel.
template <class Body>
void for_each_block(int batch, int heads, int blocks, int threads, Body body) {
#pragma omp parallel for collapse(3) num_threads(threads)
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t h = 0; h < heads; ++h) {
      for (int block = 0; block < blocks; ++block) body(b, h, block);
    }
  }
}

}  // namespace

PyramidLayout make_pyramid_layout(std::span<const int64_t> block_offsets,
                                  std::span<const int> widths) {
  SPROCKET_CHECK(!block_offsets.empty(), "no block offsets");
  SPROCKET_CHECK(
      !widths.empty() && widths[0] == 1 && widths.size() < 256 &&
          std::adjacent_find(widths.begin(), widths.end(), std::greater_equal<>()) == widths.end(),
      "pooling widths must ascend from 1");
  PyramidLayout layout;
  layout.widths.assign(widths.begin(), widths.end());
  layout.segment_rows_offsets = {0};
  layout.first_segment = {0};
  for (const int64_t offset : block_offsets) {
    layout.block_offsets.push_back(offset - block_offsets[0]);
  }
  const auto add_segment = [&](int64_t rows, int64_t tokens_per_row, int level) {
    layout.segment_rows_offsets.push_back(layout.rows() + rows);
    layout.bias.push_back(std::log(static_cast<double>(tokens_per_row)));
    layout.level.push_back(static_cast<uint8_t>(level));
  };
  for (size_t block = 0; block + 1 < block_offsets.size(); ++block) {
    const int64_t tokens = block_offsets[block + 1] - block_offsets[block];
    SPROCKET_CHECK(tokens >= 0, "block {} has {} tokens", block, tokens);
    for (int level = 1; level <= layout.levels(); ++level) {
      const int64_t width = widths[level - 1];
      const int32_t first = layout.segments();
      if (tokens >= width || level == 1) add_segment(tokens / width, width, level);
      if (tokens % width != 0) add_segment(1, tokens % width, level);
      layout.ranges.push_back({first, layout.segments() - first});
    }
    layout.first_segment.push_back(layout.segments());
  }
  return layout;
}

template <class T>
void expand_pyramid(HeadView<const T> x, const PyramidLayout& layout, int batch, int heads,
                    int head_dim, HeadView<T> extended, int threads) {
  for_each_block(batch, heads, layout.blocks(), threads, [&](int64_t b, int64_t h, int block) {
    const int64_t first = layout.block_offsets[block];
    const int64_t rows = layout.block_offsets[block + 1] - first;
    const T* from = x.row(b, first, h);
    int64_t to = layout.first_row(block);
    for (int64_t row = 0; row < rows; ++row) {
      std::copy_n(from + row * x.row_stride, head_dim, extended.row(b, to++, h));
    }
    for (size_t level = 1; level < layout.widths.size(); ++level) {
      const int64_t width = layout.widths[level];
      run_on_isa<GroupMeansKernel<T>>(from, x.row_stride, rows, width,
                                      static_cast<int64_t>(head_dim), extended.row(b, to, h),
                                      extended.row_stride);
      to += (rows + width - 1) / width;
    }
  });
}

template <class T>
void add_pyramid_gradient(HeadView<const Accumulator<T>> d_extended, const PyramidLayout& layout,
                          int batch, int heads, int head_dim, HeadView<Accumulator<T>> dx,
                          int threads) {
  using A = Accumulator<T>;
  for_each_block(batch, heads, layout.blocks(), threads, [&](int64_t b, int64_t h, int block) {
    const int64_t first = layout.block_offsets[block];
    const int64_t rows = layout.block_offsets[block + 1] - first;
    int64_t from = layout.first_row(block);
    for (const int64_t width : layout.widths) {
      run_on_isa<AddGroupsKernel<A>>(d_extended.row(b, from, h), d_extended.row_stride, rows, width,
                                     static_cast<int64_t>(head_dim), dx.row(b, first, h),
                                     dx.row_stride);
      from += (rows + width - 1) / width;
    }
  });
}

std::vector<double> pyramid_pairs(const SegmentTable& table, const PyramidLayout& layout) {
  std::vector<double> share(layout.segments(), 0);
  for (int block = 0; block < layout.blocks(); ++block) {
    for (int level = 1; level <= layout.levels(); ++level) {
      const SegmentRange range = layout.segments_of(block, level);
      if (range.count > 0) share[range.first] = 1.0 / layout.widths[level - 1];
    }
  }
  std::vector<double> pairs(table.heads);
  for (int64_t row = 0; row < table.rows(); ++row) {
    double& sum = pairs[row / table.query_blocks % table.heads];
    for (int64_t i = table.row_offsets[row]; i < table.row_offsets[row + 1]; ++i) {
      sum += share[table.kv_block[i]];
    }
  }
  return pairs;
}

#define SPROCKET_INSTANTIATE(T)                                                                    \
  template void expand_pyramid<T>(HeadView<const T>, const PyramidLayout&, int, int, int,          \
                                  HeadView<T>, int);                                               \
  template void add_pyramid_gradient<T>(HeadView<const Accumulator<T>>, const PyramidLayout&, int, \
                                        int, int, HeadView<Accumulator<T>>, int);
SPROCKET_INSTANTIATE(double)
SPROCKET_INSTANTIATE(float)
SPROCKET_INSTANTIATE(BFloat16)

}  // namespace sprocket::kernels
