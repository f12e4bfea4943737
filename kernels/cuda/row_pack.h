// Rows of a [B, rows, H, D] tensor to and from a message on the device: twins of
// kernels/row_runs.h. Asynchronous on `stream`, allocating nothing.
//
// Everything is in device memory; addresses and strides are multiples of 16 bytes, head_dim is a
// multiple of 8. One call may serve the messages to all peers: packed_row counts from the start of
// the send buffer.
//
// Errors: ConfigError for another head_dim, CudaError when the launch fails, InternalError for
// misaligned memory.
#pragma once

#include <cstdint>

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "base/stream.h"
#include "kernels/head_view.h"
#include "kernels/row_run.h"

namespace sprocket::kernels::cuda {

struct DeviceRowRuns {
  const RowRun* runs = nullptr;
  int64_t count = 0;
  int64_t max_rows = 0;  // a bound on the rows of a run; runs of similar length are fastest
};

// T: float, __nv_bfloat16 or __half.
template <class T>
void pack_rows(HeadView<const T> x, const DeviceRowRuns& runs, int head_dim, T* packed,
               StreamView stream);

// sums += packed. The runs of one call are disjoint rows of `sums`. Calls for one peer after the
// other, in the order of ranks, give the sums one order, and the host's bits.
template <class T>
void add_packed_rows(const T* packed, const DeviceRowRuns& runs, int head_dim, HeadView<float> sums,
                     StreamView stream);

}  // namespace sprocket::kernels::cuda
