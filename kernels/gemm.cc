#include "kernels/gemm.h"

#include <libxsmm.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

#include "base/error.h"
#include "kernels/lanes.h"

// A tile product in the row-major terms of this file:
//   out[column, 0..64) (+)= sum over depth of slab(column, depth) * panel[depth, 0..64)
// `panel` is 64 features wide; columns are rows of the result (tokens, or weight rows). 64 features
// are four AVX-512 vectors, wide enough that LIBXSMM keeps one chain of multiply-adds per element
// whatever the number of columns (a 16-wide kernel splits the chain for few columns).

namespace sprocket::kernels {
namespace {

constexpr int64_t kWidth = 64;       // features of a panel
constexpr int64_t kDepth = 192;      // of one tile product
constexpr int64_t kColumns = 64;     // of one tile product
constexpr int64_t kRowChunk = 960;   // rows of a partial sum of the weight gradient, whole depths
constexpr int64_t kWeightBlock = 6;  // panels per side of a task of the weight gradient
constexpr int64_t kRun = 8;          // row tiles of one task

struct Free {
  void operator()(float* data) const { std::free(data); }
};
using Scratch = std::unique_ptr<float[], Free>;

Scratch make_scratch(int64_t count) {
  const size_t bytes = (std::max<int64_t>(count, 1) * sizeof(float) + 63) / 64 * 64;
  void* data = std::aligned_alloc(64, bytes);
  if (data == nullptr) throw std::bad_alloc();
  return Scratch(static_cast<float*>(data));
}

int64_t parts(int64_t count, int64_t size) { return (count + size - 1) / size; }

// Where element (column, l) of a slab is: slab[column * stride + l] or slab[l * stride + column].
enum class Slab { kRows, kTransposed };

class TileProduct {
 public:
  // Generates what a product of so many columns and so deep will use, before threads start.
  TileProduct(Slab slab, int64_t slab_stride, int64_t columns, int64_t depth) {
    for (const bool accumulate : {false, true}) {
      for (const bool last_columns : {false, true}) {
        for (const bool last_depth : {false, true}) {
          const int64_t tile_columns = last_columns ? columns % kColumns : kColumns;
          const int64_t tile_depth = last_depth ? depth % kDepth : kDepth;
          if (tile_columns == 0 || tile_depth == 0) continue;
          if (tile_columns > columns || tile_depth > depth) continue;
          kernels_[accumulate][last_columns][last_depth] =
              generate(slab, slab_stride, tile_columns, tile_depth, accumulate);
        }
      }
    }
  }

  void operator()(const float* panel, const float* slab, int64_t columns, int64_t depth,
                  bool accumulate, float* out) const {
    kernels_[accumulate][columns != kColumns][depth != kDepth](panel, slab, out);
  }

 private:
  static libxsmm_smmfunction generate(Slab slab, int64_t slab_stride, int64_t columns,
                                      int64_t depth, bool accumulate) {
    const int width = kWidth, stride = static_cast<int>(slab_stride);
    const int flags = slab == Slab::kRows ? LIBXSMM_GEMM_FLAG_NONE : LIBXSMM_GEMM_FLAG_TRANS_B;
    const float alpha = 1, beta = accumulate ? 1.0f : 0.0f;
    const int prefetch = LIBXSMM_GEMM_PREFETCH_NONE;
    const libxsmm_smmfunction kernel =
        libxsmm_smmdispatch(width, static_cast<int>(columns), static_cast<int>(depth), &width,
                            &stride, &width, &alpha, &beta, &flags, &prefetch);
    SPROCKET_CHECK(kernel != nullptr, "LIBXSMM has no {} x {} x {} kernel for {}", kWidth, columns,
                   depth, libxsmm_get_target_arch());
    return kernel;
  }

  libxsmm_smmfunction kernels_[2][2][2] = {};
};

struct CopyPanelKernel {
  SPROCKET_INLINE static void run(const float* from, int64_t stride, int64_t rows, int64_t width,
                                  float* to) {
    if (width == kWidth) {
      for (int64_t row = 0; row < rows; ++row) {
        for (int64_t j = 0; j < kWidth; j += kLanes<float>) {
          store(to + row * kWidth + j, load(from + row * stride + j));
        }
      }
      return;
    }
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t j = 0; j < kWidth; j += kLanes<float>) {
        const int64_t count = std::clamp<int64_t>(width - j, 0, kLanes<float>);
        store(to + row * kWidth + j, load_first(from + row * stride + std::min(j, width), count));
      }
    }
  }
};

// to[row, 0..kWidth) = from[row, 0..width), zeros behind.
void copy_panel(const float* from, int64_t stride, int64_t rows, int64_t width, float* to) {
  run_on_isa<CopyPanelKernel>(from, stride, rows, width, to);
}

// to[depth, 0..kWidth) = from[0..width, depth), zeros behind.
void transpose_panel(const float* from, int64_t stride, int64_t depth, int64_t width, float* to) {
  if (width < kWidth) std::fill_n(to, depth * kWidth, 0.0f);
  libxsmm_otrans(to, from, sizeof(float), static_cast<int>(depth), static_cast<int>(width),
                 static_cast<int>(stride), static_cast<int>(kWidth));
}

// Rows that will be packed next. They are fetched into the second-level cache a part at a time,
// while tiles are multiplied: packing otherwise waits for memory for 5 to 15 % of the time.
struct Ahead {
  const float* data = nullptr;
  int64_t stride = 0, rows = 0, width = 0;

  void fetch(int64_t part, int64_t all_parts) const {
    for (int64_t row = rows * part / all_parts; row < rows * (part + 1) / all_parts; ++row) {
      for (int64_t j = 0; j < width; j += 16) __builtin_prefetch(data + row * stride + j, 0, 2);
    }
  }
};

// to[row, 0..width) = tile[row, 0..width) (+ bias).
struct WriteTileKernel {
  SPROCKET_INLINE static void run(const float* tile, const float* bias, int64_t rows, int64_t width,
                                  float* to, int64_t stride) {
    for (int64_t j = 0; j < width; j += kLanes<float>) {
      const int64_t count = std::min<int64_t>(kLanes<float>, width - j);
      const Lanes<float> shift = bias ? load_first(bias + j, count) : Lanes<float>{};
      if (count == kLanes<float>) {
        for (int64_t row = 0; row < rows; ++row) {
          store(to + row * stride + j, load(tile + row * kWidth + j) + shift);
        }
      } else {
        for (int64_t row = 0; row < rows; ++row) {
          store_first(to + row * stride + j, load(tile + row * kWidth + j) + shift, count);
        }
      }
    }
  }
};

// to[row, 0..width) += tile[row, 0..width).
struct AddTileKernel {
  SPROCKET_INLINE static void run(const float* tile, int64_t rows, int64_t width, float* to,
                                  int64_t stride) {
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t j = 0; j < width; ++j) to[row * stride + j] += tile[row * kWidth + j];
    }
  }
};

// A weight as panels [features / 64][depth][64].
template <class PackPanel>
Scratch pack_weight(int64_t features, int64_t depth, int threads, PackPanel pack_panel) {
  const int64_t panels = parts(features, kWidth);
  Scratch packed = make_scratch(panels * depth * kWidth);
#pragma omp parallel for num_threads(threads)
  for (int64_t p = 0; p < panels; ++p) {
    pack_panel(p * kWidth, std::min(kWidth, features - p * kWidth),
               packed.get() + p * depth * kWidth);
  }
  return packed;
}

// result[m, features] = x[m, depth] * packed (+ bias).
void multiply_packed(const float* x, const float* packed, const float* bias, float* result,
                     int64_t m, int64_t features, int64_t depth, int threads) {
  const TileProduct product(Slab::kRows, depth, m, depth);
  const int64_t tiles = parts(m, kColumns), panels = parts(features, kWidth);
  if (tiles == 0 || panels == 0) return;
  // A task is a run of row tiles times a group of panels, small enough to feed all threads.
  const int64_t run = std::clamp<int64_t>(tiles / (4 * threads), 1, kRun);
  const int64_t runs = parts(tiles, run);
  const int64_t group = parts(panels, std::clamp<int64_t>(parts(4 * threads, runs), 1, panels));
  const int64_t groups = parts(panels, group);
#pragma omp parallel num_threads(threads)
  {
    const Scratch out = make_scratch(kColumns * kWidth);
#pragma omp for collapse(2) schedule(dynamic)
    for (int64_t r = 0; r < runs; ++r) {
      for (int64_t g = 0; g < groups; ++g) {
        const int64_t last_row = std::min(m, (r + 1) * run * kColumns);
        for (int64_t row = r * run * kColumns; row < last_row; row += kColumns) {
          const int64_t rows = std::min(kColumns, m - row);
          const int64_t next = row + kColumns;
          const Ahead ahead{x + next * depth, depth,
                            std::clamp<int64_t>(last_row - next, 0, kColumns), depth};
          const int64_t last_panel = std::min(panels, (g + 1) * group);
          for (int64_t p = g * group; p < last_panel; ++p) {
            ahead.fetch(p - g * group, last_panel - g * group);
            for (int64_t first = 0; first < depth; first += kDepth) {
              product(packed + (p * depth + first) * kWidth, x + row * depth + first, rows,
                      std::min(kDepth, depth - first), first > 0, out.get());
            }
            if (depth == 0) std::fill_n(out.get(), rows * kWidth, 0.0f);
            run_on_isa<WriteTileKernel>(static_cast<const float*>(out.get()),
                                        bias ? bias + p * kWidth : nullptr, rows,
                                        std::min(kWidth, features - p * kWidth),
                                        result + row * features + p * kWidth, features);
          }
        }
      }
    }
  }
}

// One row of the weight against few rows of x.
struct FewRowsKernel {
  SPROCKET_INLINE static void run(const float* x, const float* w, int64_t m, int64_t k, float bias,
                                  float* y, int64_t y_stride) {
    const int64_t whole = k - k % kLanes<float>;
    for (int64_t row = 0; row < m; ++row) {
      Lanes<float> sums[2] = {};
      int64_t l = 0;
      for (; l + 2 * kLanes<float> <= whole; l += 2 * kLanes<float>) {
        sums[0] += load(x + row * k + l) * load(w + l);
        sums[1] += load(x + row * k + l + kLanes<float>) * load(w + l + kLanes<float>);
      }
      for (; l < whole; l += kLanes<float>) sums[0] += load(x + row * k + l) * load(w + l);
      sums[1] += load_first(x + row * k + l, k - l) * load_first(w + l, k - l);
      y[row * y_stride] = sum_of_lanes<float>(sums[0] + sums[1]) + bias;
    }
  }
};

// sums[j] += every row's element j, rows in ascending order.
struct SumRowsKernel {
  SPROCKET_INLINE static void run(const float* rows_of_dy, int64_t stride, int64_t rows,
                                  int64_t width, float* sums) {
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t j = 0; j < width; ++j) sums[j] += rows_of_dy[row * stride + j];
    }
  }
};

// A task of the weight gradient: k_panels x n_panels tiles.
struct WeightBlock {
  int64_t first_k = 0, k_panels = 0, first_n = 0, n_panels = 0;  // in panels
};

struct WeightScratch {
  Scratch x_panels, sums, row_sums;
  WeightScratch(int64_t k_panels, int64_t n_panels)
      : x_panels(make_scratch(k_panels * kDepth * kWidth)),
        sums(make_scratch(k_panels * n_panels * kWidth * kColumns)),
        row_sums(make_scratch(n_panels * kColumns)) {}
};

// db is null or the gradient of the bias of this block's rows of dw.
void weight_gradient_block(const float* dy, const float* x, float* dw, float* db, int64_t m,
                           int64_t n, int64_t k, bool accumulate, const WeightBlock& block,
                           const TileProduct& product, const WeightScratch& scratch) {
  const int64_t tiles = k == 0 ? 0 : block.k_panels * block.n_panels;
  const int64_t first_k = block.first_k * kWidth, first_n = block.first_n * kColumns;
  const int64_t width_k = std::min(k - first_k, block.k_panels * kWidth);
  const int64_t width_n = std::min(n - first_n, block.n_panels * kColumns);
  for (int64_t row = 0; row < m; row += kDepth) {
    const int64_t rows = std::min(kDepth, m - row), next = row + kDepth;
    for (int64_t j = 0; j < width_k; j += kWidth) {
      copy_panel(x + row * k + first_k + j, k, rows, std::min(kWidth, width_k - j),
                 scratch.x_panels.get() + j * kDepth);
    }
    if (db != nullptr) {
      if (row % kRowChunk == 0) std::fill_n(scratch.row_sums.get(), width_n, 0.0f);
      run_on_isa<SumRowsKernel>(dy + row * n + first_n, n, rows, width_n, scratch.row_sums.get());
    }
    const int64_t next_rows = std::clamp<int64_t>(m - next, 0, kDepth);
    const Ahead ahead_x{x + next * k + first_k, k, next_rows, width_k};
    const Ahead ahead_dy{dy + next * n + first_n, n, next_rows, width_n};
    for (int64_t tile = 0; tile < tiles; ++tile) {
      ahead_x.fetch(tile, tiles);
      ahead_dy.fetch(tile, tiles);
      const int64_t column = tile / block.k_panels * kColumns;
      product(scratch.x_panels.get() + tile % block.k_panels * kDepth * kWidth,
              dy + row * n + first_n + column, std::min(kColumns, width_n - column), rows,
              row % kRowChunk != 0, scratch.sums.get() + tile * kWidth * kColumns);
    }
    if (next < m && next % kRowChunk != 0) continue;
    const bool add = accumulate || row >= kRowChunk;
    for (int64_t j = 0; db != nullptr && j < width_n; ++j) {
      db[j] = (add ? db[j] : 0.0f) + scratch.row_sums.get()[j];
    }
    for (int64_t tile = 0; tile < tiles; ++tile) {
      const int64_t tile_k = tile % block.k_panels * kWidth;
      const int64_t tile_n = tile / block.k_panels * kColumns;
      const float* sums = scratch.sums.get() + tile * kWidth * kColumns;
      float* to = dw + (first_n + tile_n) * k + first_k + tile_k;
      const int64_t tile_rows = std::min(kColumns, width_n - tile_n);
      const int64_t width = std::min(kWidth, width_k - tile_k);
      if (add) {
        run_on_isa<AddTileKernel>(sums, tile_rows, width, to, k);
      } else {
        run_on_isa<WriteTileKernel>(sums, static_cast<const float*>(nullptr), tile_rows, width, to,
                                    k);
      }
    }
  }
}

}  // namespace

void linear_forward(const float* x, const float* w, const float* bias, float* y, int64_t m,
                    int64_t n, int64_t k, int threads) {
  if (m < kFewRows) {
#pragma omp parallel for num_threads(threads)
    for (int64_t j = 0; j < n; ++j) {
      run_on_isa<FewRowsKernel>(x, w + j * k, m, k, bias ? bias[j] : 0.0f, y + j, n);
    }
    return;
  }
  const Scratch packed =
      pack_weight(n, k, threads, [&](int64_t first, int64_t width, float* panel) {
        if (k > 0) transpose_panel(w + first * k, k, k, width, panel);
      });
  multiply_packed(x, packed.get(), bias, y, m, n, k, threads);
}

void linear_backward_input(const float* dy, const float* w, float* dx, int64_t m, int64_t n,
                           int64_t k, int threads) {
  const Scratch packed =
      pack_weight(k, n, threads, [&](int64_t first, int64_t width, float* panel) {
        copy_panel(w + first, k, n, width, panel);
      });
  multiply_packed(dy, packed.get(), nullptr, dx, m, k, n, threads);
}

void linear_backward_weight(const float* dy, const float* x, float* dw, float* db, int64_t m,
                            int64_t n, int64_t k, bool accumulate, int threads) {
  if (!accumulate && m == 0) {
    std::fill_n(dw, n * k, 0.0f);
    if (db != nullptr) std::fill_n(db, n, 0.0f);
  }
  const int64_t k_panels = std::max<int64_t>(parts(k, kWidth), 1), n_panels = parts(n, kColumns);
  if (m == 0 || n == 0) return;
  const TileProduct product(Slab::kTransposed, n, n, m);
  // Large square blocks read the operands least often; smaller ones feed all threads.
  int64_t k_blocks = parts(k_panels, kWeightBlock), n_blocks = parts(n_panels, kWeightBlock);
  while (k_blocks * n_blocks < threads && (k_blocks < k_panels || n_blocks < n_panels)) {
    const bool cut_n = parts(n_panels, n_blocks) >= parts(k_panels, k_blocks);
    ++(cut_n ? n_blocks : k_blocks);
  }
  const int64_t k_block = parts(k_panels, k_blocks), n_block = parts(n_panels, n_blocks);
#pragma omp parallel num_threads(threads)
  {
    const WeightScratch scratch(k_block, n_block);
#pragma omp for collapse(2) schedule(dynamic)
    for (int64_t first_n = 0; first_n < n_panels; first_n += n_block) {
      for (int64_t first_k = 0; first_k < k_panels; first_k += k_block) {
        weight_gradient_block(dy, x, dw,
                              db != nullptr && first_k == 0 ? db + first_n * kColumns : nullptr, m,
                              n, k, accumulate,
                              {first_k, std::min(k_block, k_panels - first_k), first_n,
                               std::min(n_block, n_panels - first_n)},
                              product, scratch);
      }
    }
  }
}

}  // namespace sprocket::kernels
