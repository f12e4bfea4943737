// The query side of attention calls on a CUDA device: what segment_pass.h's twin for devices reads
// beside the tensors. Made once for all passes of a call.
#pragma once

#include <memory>
#include <vector>

#include <ATen/core/Tensor.h>

#include "kernels/segment_table.h"

namespace sprocket::parallel {

// A SegmentTable in device memory, and the same pairs by KV block for the backward
// (kernels/cuda/device_table.h); i32.
struct DeviceTableTensors {
  at::Tensor row_offsets;     // [rows + 1]
  at::Tensor kv_block;        // [pairs]
  at::Tensor column_offsets;  // [columns + 1]
  at::Tensor query_block;     // [pairs]
  at::Tensor pair;            // [pairs]
};

struct DeviceQuery {
  DeviceTableTensors table;
  at::Tensor query_offsets;  // i32 [query blocks + 1]
  at::Tensor query_rows;     // i32 [rows of the table]; undefined: all rows take part
  int max_query_rows = 0;    // of a block
  int max_row_pairs = 0;     // of a row of the table
};

// The place of a query side's device form, which the first pass that reads it makes: dense passes
// do not (dense_rows.h).
struct DeviceForm {
  std::shared_ptr<const DeviceQuery> made;
};

// Bounds that kernels on a device take from the host, which has the table.
int longest_row(const kernels::SegmentTable& table);
int longest_block(const std::vector<int64_t>& offsets);
int longest_block(const kernels::KvBlockMap& map);
// Throws InternalError for what 32 bits cannot count.
std::vector<int32_t> narrowed(const std::vector<int64_t>& values);

// Copies from pinned memory, without waiting; the inverse is made on the device.
std::shared_ptr<const DeviceQuery> upload_query(const kernels::SegmentTable& table,
                                                const std::vector<int64_t>& query_offsets,
                                                const std::vector<int32_t>& query_rows,
                                                const at::Device& device);

}  // namespace sprocket::parallel
