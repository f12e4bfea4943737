// The messages of Ulysses on the device: a rank's rows of all heads, cut by heads, to and from the
// rows of all members of some heads, cut by rows. Data moves only.
//
// Everything is in device memory and 16-byte aligned, strides too; T is float, __nv_bfloat16 or
// __half; head_dim is a multiple of 8. Asynchronous on `stream`, allocating nothing. The message of
// a member holds several tensors, one after the other; a call moves one of them.
//
// Errors: ConfigError for another head_dim, CudaError when the launch fails, InternalError for
// misaligned memory.
#pragma once

#include <cstdint>

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "base/stream.h"
#include "kernels/head_view.h"

namespace sprocket::kernels::cuda {

// Messages of one tensor by head: message m at messages + m * message_stride elements holds
// [batch, rows, heads, head_dim]; its place i is head order[m * heads + i] of the tensor.
struct HeadMessages {
  int members = 0;
  int batch = 0;
  int64_t rows = 0;
  int heads = 0;  // of a message
  int head_dim = 0;
  const int32_t* order = nullptr;  // [members * heads], distinct
  int64_t message_stride = 0;
};
template <class T>
void pack_heads(HeadView<const T> x, const HeadMessages& layout, T* messages, StreamView stream);
// Heads that `order` does not name are left as they are.
template <class T>
void unpack_heads(const T* messages, const HeadMessages& layout, HeadView<T> x, StreamView stream);

// Messages of one tensor by row: member m holds rows first_row[m] up to first_row[m + 1] of the
// tensor [batch, rows, heads, head_dim], contiguous. Its message, in the order of members and
// without gaps, holds [tensors, batch, its rows, heads, head_dim]; the call moves number `tensor`.
struct RowMessages {
  int members = 0;
  int tensors = 0;
  int tensor = 0;
  int batch = 0;
  int64_t rows = 0;  // first_row[members]
  int heads = 0;
  int head_dim = 0;
  const int64_t* first_row = nullptr;  // [members + 1], ascending from 0
};
template <class T>
void pack_member_rows(const T* x, const RowMessages& layout, T* messages, StreamView stream);
template <class T>
void unpack_member_rows(const T* messages, const RowMessages& layout, T* x, StreamView stream);

}  // namespace sprocket::kernels::cuda
