// The three small products of segment attention on tiles, through LIBXSMM's generated kernels, with
// a plain fallback for fp32 where LIBXSMM has none.
//
// All matrices are row-major and contiguous; `dim` and `columns` are multiples of 16. The right
// operand is read by vectors, the left one by broadcasts. In bf16 the right operand holds rows 2i
// and 2i+1 interleaved ([rows/2][width][2]), the order of the dot-product instruction.
#pragma once

#include <cstdint>

#include "base/bfloat16.h"

namespace sprocket::kernels {

// Packed: float or BFloat16 (then has_bf16_products() is required); accumulators are fp32.
template <class Packed>
class TileProducts {
 public:
  explicit TileProducts(int dim) : dim_(dim) {}

  // The tile's number of keys (1..64) and queries (16, 32, 48, 64) for the calls that follow.
  void select(int rows, int columns);

  // c[rows][columns] = left[rows][dim] right[dim][columns]
  void scores(const Packed* left, const Packed* right, float* c) const {
    call(scores_, left, right, c);
  }
  // c[dim][columns] += left^T right[rows][columns]; left is [rows][dim] for fp32 and, already
  // transposed, [dim][rows rounded up to even] for bf16.
  void outputs(const Packed* left, const Packed* right, float* c) const {
    call(outputs_, left, right, c);
  }
  // c[rows][dim] += left[rows][columns] right[columns][dim]
  void key_gradients(const Packed* left, const Packed* right, float* c) const {
    call(key_gradients_, left, right, c);
  }

 private:
  using Function = void (*)(const Packed* right, const Packed* left, float* c, ...);
  struct Product {
    Function function = nullptr;  // null: the fallback
    int n = 0, m = 0, k = 0;      // c[n][m] (+)= left(n, k) right[k][m]
    int64_t left_row = 0, left_column = 0;
    bool accumulate = false;
  };
  Product make(int n, int m, int k, bool left_is_transposed, bool accumulate) const;
  void call(const Product& product, const Packed* left, const Packed* right, float* c) const;

  int dim_;
  int rows_ = 0;
  int columns_ = 0;
  Product scores_, outputs_, key_gradients_;
};

// to[columns][to_stride] = transpose of from[rows][from_stride], 32-bit elements.
void transpose_words(const void* from, int rows, int columns, int from_stride, void* to,
                     int to_stride);

}  // namespace sprocket::kernels
