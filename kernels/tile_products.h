// The three small products of segment attention on tiles, through LIBXSMM's generated kernels, with
// a plain fallback for fp32 where LIBXSMM has none.
//
// All matrices are row-major and contiguous; `dim` and `columns` are multiples of 16. The right
// operand is read by vectors, the left one by broadcasts. In bf16 the right operand holds rows 2i
// and 2i+1 interleaved ([rows/2][width][2]), the order of the dot-product instruction.
#pragma once

#include <cstdint>
#include <type_traits>

#include "base/bfloat16.h"

namespace sprocket::kernels {

// Packed: float or BFloat16 (then has_bf16_products() is required); accumulators are fp32.
//
// Meanwhile a product brings what later ones read into the second-level cache.
struct Prefetch {
  const void* like_result = nullptr;  // as many bytes as the result; not by `outputs` in fp32
  const void* like_right = nullptr;   // as many bytes as the right operand
};

template <class Packed>
class TileProducts {
 public:
  explicit TileProducts(int dim) : dim_(dim) {}

  // The tile's number of keys (1..64) and queries (16, 32, 48, 64) for the calls that follow.
  // LIBXSMM generates each shape once per process.
  void select(int rows, int columns);

  // c[rows][columns] = left[rows][dim] right[dim][columns]
  void scores(const Packed* left, const Packed* right, float* c, const Prefetch& next = {}) const;
  // c[dim][columns] += left^T right[rows][columns]; left is [rows][dim] for fp32 and, already
  // transposed, [dim][rows rounded up to even] for bf16.
  void outputs(const Packed* left, const Packed* right, float* c, const Prefetch& next = {}) const;
  // c[rows][dim] += left[rows][columns] right[columns][dim]
  void key_gradients(const Packed* left, const Packed* right, float* c,
                     const Prefetch& next = {}) const;

 private:
  using Function = void (*)(const void* right, const void* left, float* c, const void* like_right,
                            const void* like_result, const float* next_c);
  // c[n][m] (+)= left(n, k) right[k][m]
  struct Extent {
    int n, m, k;
    bool left_is_transposed, accumulate;
  };
  struct Functions {
    bool made = false;
    Function scores = nullptr, outputs = nullptr, key_gradients = nullptr;  // null: the fallback
  };
  static constexpr bool kPairs = !std::is_same_v<Packed, float>;

  Extent scores_extent() const { return {rows_, columns_, dim_, false, false}; }
  Extent outputs_extent() const {
    return {dim_, columns_, kPairs ? (rows_ + 1) / 2 * 2 : rows_, !kPairs, true};
  }
  Extent key_gradients_extent() const { return {rows_, dim_, columns_, false, true}; }
  static Function make(const Extent& extent);
  static void call(Function function, const Extent& extent, const Packed* left, const Packed* right,
                   float* c, const Prefetch& next);

  int dim_;
  int rows_ = 0;
  int columns_ = 0;
  Functions current_;
  Functions known_[64][4];  // by rows - 1, columns / 16 - 1
};

// to[columns][to_stride] = transpose of from[rows][from_stride], 32-bit elements.
void transpose_words(const void* from, int rows, int columns, int from_stride, void* to,
                     int to_stride);

}  // namespace sprocket::kernels
