// From a table in device memory to the same pairs by KV block, by a counting sort.
//
// Everything is asynchronous on `stream`, allocates nothing and throws CudaError when a launch is
// refused. The result depends on the table alone.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/stream.h"
#include "kernels/cuda/device_table.h"

namespace sprocket::kernels::cuda {

// Device memory of the result; see DeviceInverseTable.
struct InverseTableBuffers {
  int32_t* column_offsets = nullptr;  // [columns + 1]
  int32_t* query_block = nullptr;     // [max_pairs]
  int32_t* pair = nullptr;            // [max_pairs]
};

// Device memory that build_inverse_table works in: 4 bytes for every KV block of every 32 query
// blocks of every head.
int64_t inverse_table_workspace_bytes(const DeviceTable& table);

// Needs 4 bytes of shared memory for each KV block; InternalError where the device has less.
// workspace: 4-byte aligned, any contents. Only table.row_offsets[rows] pairs are written.
DeviceInverseTable build_inverse_table(const DeviceTable& table, const InverseTableBuffers& to,
                                       void* workspace, StreamView stream);

// Device memory of a bitmap with one bit for every column (b, h, j), which is bit
// column % 8 of byte column / 8; a multiple of 4 bytes, of which the last ones may be zeros.
int64_t need_bitmap_bytes(const DeviceTable& table);

// Which blocks the table lists at all: what a rank asks of the others. bitmap: 4-byte aligned, any
// contents. Needs as much shared memory as the bits of one head.
void mark_needed_blocks(const DeviceTable& table, void* bitmap, StreamView stream);

}  // namespace sprocket::kernels::cuda
