// Rows of a [B, rows, H, D] tensor to and from a message: the copies of the selected exchange.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/segment_attention.h"

namespace sprocket::kernels {

// `rows` consecutive rows of one (batch, head) of the tensor, which lie together in the message.
struct RowRun {
  int32_t batch = 0;
  int32_t head = 0;
  int64_t first_row = 0;  // of the tensor
  int64_t rows = 0;
  int64_t packed_row = 0;  // of the message, which has head_dim elements a row
};

template <class T>
void pack_rows(HeadView<const T> x, std::span<const RowRun> runs, int head_dim, T* packed,
               int threads);

// sums += packed, in the accumulator type. The runs are disjoint rows of `sums`.
template <class T>
void add_packed_rows(const T* packed, std::span<const RowRun> runs, int head_dim,
                     HeadView<Accumulator<T>> sums, int threads);

}  // namespace sprocket::kernels
