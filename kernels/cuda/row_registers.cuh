// A row in the registers of a block of threads (row_layout.h).
#pragma once

#include "kernels/cuda/octet.cuh"
#include "kernels/cuda/row_layout.h"

namespace sprocket::kernels::cuda {

// This thread's pieces; zeros beyond the end of the row.
using RowPiece = Octet[kRowOctets];

__device__ __forceinline__ int64_t column_of(int octet) {
  return (static_cast<int64_t>(octet) * blockDim.x + threadIdx.x) * kOctet;
}

template <class T>
__device__ __forceinline__ void load_row(const T* row, int64_t dim, RowPiece& piece) {
#pragma unroll
  for (int k = 0; k < kRowOctets; ++k) {
    const int64_t column = column_of(k);
    piece[k] = column < dim ? load_octet(row + column) : octet_of(0);
  }
}

template <class T>
__device__ __forceinline__ void store_row(T* row, int64_t dim, const RowPiece& piece) {
#pragma unroll
  for (int k = 0; k < kRowOctets; ++k) {
    const int64_t column = column_of(k);
    if (column < dim) store_octet(row + column, piece[k]);
  }
}

// step(k, i) for element i of every piece k that the row has.
template <class Step>
__device__ __forceinline__ void for_each_element(int64_t dim, Step step) {
#pragma unroll
  for (int k = 0; k < kRowOctets; ++k) {
    if (column_of(k) >= dim) continue;
#pragma unroll
    for (int i = 0; i < kOctet; ++i) step(k, i);
  }
}

}  // namespace sprocket::kernels::cuda
