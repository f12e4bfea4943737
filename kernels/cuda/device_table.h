// A SegmentTable and a KvBlockMap (kernels/segment_table.h) in device memory.
//
// The structs are views that live on the host and are passed by value; every pointer in them is to
// device memory that the caller owns and keeps until the stream is past its last use. How many
// pairs a table lists is known on the device alone: the host has a bound, so that nothing waits for
// it.
#pragma once

#include <cstdint>

namespace sprocket::kernels::cuda {

// Row (b, h, i) = (b * heads + h) * query_blocks + i lists kv_block[row_offsets[row]] up to
// kv_block[row_offsets[row + 1] - 1], ascending.
struct DeviceTable {
  int batch = 0;
  int heads = 0;
  int query_blocks = 0;
  int kv_blocks = 0;
  int64_t max_pairs = 0;                 // a bound on row_offsets[rows]; below 2^31
  const int32_t* row_offsets = nullptr;  // [rows + 1]
  const int32_t* kv_block = nullptr;     // [max_pairs] of which row_offsets[rows] are in use

  constexpr int64_t rows() const { return static_cast<int64_t>(batch) * heads * query_blocks; }
  constexpr int64_t columns() const { return static_cast<int64_t>(batch) * heads * kv_blocks; }
};

// The memory of a DeviceTable that a selection writes.
struct DeviceTableBuffers {
  int32_t* row_offsets = nullptr;  // [rows + 1]
  int32_t* kv_block = nullptr;     // [max_pairs]
};

// The same pairs by KV block: column (b, h, j) = (b * heads + h) * kv_blocks + j is listed by the
// query blocks query_block[column_offsets[column]] up to query_block[column_offsets[column + 1] -
// 1], ascending; pair[] of an entry is its place in the table's kv_block.
struct DeviceInverseTable {
  const int32_t* column_offsets = nullptr;  // [columns + 1]
  const int32_t* query_block = nullptr;     // [max_pairs]
  const int32_t* pair = nullptr;            // [max_pairs]
};

// KvBlock with its bias in fp32.
struct DeviceKvBlock {
  int32_t buffer = 0;
  int32_t rows = 0;  // 0: not available in this pass, skipped
  int64_t first_row = 0;
  float bias = 0;
};

struct DeviceBlockMap {
  bool per_head = false;
  const DeviceKvBlock* blocks = nullptr;  // [kv_blocks], or [batch * heads * kv_blocks] if per_head
};

}  // namespace sprocket::kernels::cuda
