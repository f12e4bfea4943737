// Tables of rows whose lengths nobody knows before: every row is a bitmap, and a table is made of
// them by counting, adding up and listing.
//
// Bit id % 32 of word id / 32 of a row says whether it lists KV block id; a row has
// bitmap_words(kv_blocks) words, of which the last one's spare bits are zeros.
#pragma once

#include <cstdint>

#include "base/stream.h"
#include "kernels/cuda/device_table.h"

namespace sprocket::kernels::cuda {

constexpr int64_t bitmap_words(int64_t kv_blocks) { return (kv_blocks + 31) / 32; }

// `shape` says batch, heads, query_blocks, kv_blocks and max_pairs, which no selection may exceed:
// nothing is written behind it. bitmaps: [rows, bitmap_words] in device memory. Asynchronous on
// `stream`, allocates nothing, throws CudaError when a launch is refused.
DeviceTable table_of_bitmaps(const DeviceTable& shape, const uint32_t* bitmaps,
                             const DeviceTableBuffers& to, StreamView stream);

}  // namespace sprocket::kernels::cuda
