#include "kernels/packed_head.h"

#include <cstring>

#include "kernels/lanes.h"
#include "kernels/tile_products.h"

namespace sprocket::kernels {
namespace {

struct WidenRow {
  SPROCKET_INLINE static void run(const BFloat16* from, float* to, int count) {
    int i = 0;
    for (; i + 16 <= count; i += 16) store(to + i, load(from + i));
    for (; i < count; ++i) to[i] = static_cast<float>(from[i]);
  }
};

struct InterleaveRows {
  SPROCKET_INLINE static void run(const uint16_t* from, int rows, int dim, uint32_t* to) {
    for (int row = 0; row < rows; row += 2) {
      const uint16_t* even = from + int64_t{row} * dim;
      uint32_t* pairs = to + int64_t{row / 2} * dim;
      if (row + 1 < rows) {
        for (int d = 0; d < dim; ++d)
          pairs[d] = even[d] | static_cast<uint32_t>(even[dim + d]) << 16;
      } else {
        for (int d = 0; d < dim; ++d) pairs[d] = even[d];
      }
    }
  }
};

struct AddRow {
  SPROCKET_INLINE static void run(const float* from, float* to, int count) {
    for (int i = 0; i < count; ++i) to[i] += from[i];
  }
};

}  // namespace

template <class T, class Packed>
void copy_rows(const T* from, int64_t stride, int rows, int dim, Packed* to, int padded_rows,
               int padded_dim) {
  for (int row = 0; row < rows; ++row) {
    Packed* target = to + int64_t{row} * padded_dim;
    if constexpr (std::is_same_v<T, Packed>) {
      std::memcpy(static_cast<void*>(target), from + row * stride, dim * sizeof(T));
    } else {
      run_on_isa<WidenRow>(from + row * stride, target, dim);
    }
    std::memset(static_cast<void*>(target + dim), 0, (padded_dim - dim) * sizeof(Packed));
  }
  std::memset(static_cast<void*>(to + int64_t{rows} * padded_dim), 0,
              int64_t{padded_rows - rows} * padded_dim * sizeof(Packed));
}

template void copy_rows(const float*, int64_t, int, int, float*, int, int);
template void copy_rows(const BFloat16*, int64_t, int, int, float*, int, int);
template void copy_rows(const BFloat16*, int64_t, int, int, BFloat16*, int, int);

void interleave_rows(const BFloat16* from, int rows, int dim, BFloat16* to) {
  run_on_isa<InterleaveRows>(reinterpret_cast<const uint16_t*>(from), rows, dim,
                             reinterpret_cast<uint32_t*>(to));
}

// Interleaving makes 32-bit words of two rows; transposing those leaves the rows contiguous.
void transpose_pairs(const BFloat16* from, int rows, int dim, BFloat16* scratch, BFloat16* to) {
  interleave_rows(from, rows, dim, scratch);
  transpose_words(scratch, rows / 2, dim, dim, to, rows / 2);
}

void add_rows(const float* from, int from_stride, int rows, int dim, float* to, int64_t to_stride) {
  for (int row = 0; row < rows; ++row) {
    run_on_isa<AddRow>(from + int64_t{row} * from_stride, to + row * to_stride, dim);
  }
}

}  // namespace sprocket::kernels
