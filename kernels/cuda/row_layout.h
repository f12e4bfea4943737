// How rows are given to threads, and how sums over rows are cut: integer code for host and device.
//
// A row belongs to one block of threads; each thread keeps kRowOctets pieces of eight elements of
// it in registers. Sums over rows are made of partial sums over kPartialRows rows each of one
// sample, so that their bits do not depend on the grid.
#pragma once

#include <cstdint>

#include "kernels/cuda/host_device.h"

namespace sprocket::kernels::cuda {

inline constexpr int kRowOctets = 2;
inline constexpr int kMaxRowThreads = 512;
inline constexpr int64_t kMaxRowDim = int64_t{8} * kRowOctets * kMaxRowThreads;
inline constexpr int64_t kPartialRows = 32;
inline constexpr int64_t kForwardRows = 4;  // of a block that makes no sums over rows

constexpr SPROCKET_HOST_DEVICE int64_t ceil_div(int64_t count, int64_t part) {
  return (count + part - 1) / part;
}

// Threads of a block that holds a row of `dim` elements: whole warps. dim <= kMaxRowDim.
constexpr SPROCKET_HOST_DEVICE int row_threads(int64_t dim) {
  return static_cast<int>(ceil_div(dim, int64_t{8} * kRowOctets * 32)) * 32;
}

// Rows of all samples, cut into chunks of `size` rows; a chunk is of one sample.
struct RowChunks {
  int64_t batch = 0;
  int64_t rows = 0;  // of a sample
  int64_t size = 1;

  constexpr SPROCKET_HOST_DEVICE int64_t of_sample() const { return ceil_div(rows, size); }
  constexpr SPROCKET_HOST_DEVICE int64_t count() const { return batch * of_sample(); }
  constexpr SPROCKET_HOST_DEVICE int64_t sample(int64_t chunk) const { return chunk / of_sample(); }
  constexpr SPROCKET_HOST_DEVICE int64_t first_row(int64_t chunk) const {  // of the sample
    return chunk % of_sample() * size;
  }
  constexpr SPROCKET_HOST_DEVICE int64_t row_count(int64_t chunk) const {
    const int64_t left = rows - first_row(chunk);
    return left < size ? left : size;
  }
};

}  // namespace sprocket::kernels::cuda
