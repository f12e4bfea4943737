// Rows of a [B, rows, H, D] tensor to and from a message: the copies of the selected exchange.
#pragma once

#include <cstdint>
#include <span>

#include "base/bfloat16.h"
#include "kernels/head_view.h"
#include "kernels/row_run.h"

namespace sprocket::kernels {

template <class T>
void pack_rows(HeadView<const T> x, std::span<const RowRun> runs, int head_dim, T* packed,
               int threads);

// sums += packed, in the accumulator type. The runs are disjoint rows of `sums`.
template <class T>
void add_packed_rows(const T* packed, std::span<const RowRun> runs, int head_dim,
                     HeadView<Accumulator<T>> sums, int threads);

}  // namespace sprocket::kernels
