// Which KV blocks every query block attends to, and where their rows are.
//
// One SegmentTable serves all attention methods; the segment attention kernel consumes it. Block
// ids are global (over the whole sequence), whatever part of it a rank holds.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace sprocket::kernels {

// CSR over rows (batch, head, local query block), row index = (batch * heads + head) * query_blocks
// + i.
struct SegmentTable {
  int batch = 0;
  int heads = 0;
  int query_blocks = 0;
  int kv_blocks = 0;                 // N, the number of ids
  std::vector<int64_t> row_offsets;  // [batch * heads * query_blocks + 1]
  std::vector<int32_t> kv_block;     // ascending inside a row, each in [0, kv_blocks)

  int64_t rows() const { return static_cast<int64_t>(batch) * heads * query_blocks; }
  std::span<const int32_t> row(int batch_index, int head, int query_block) const;
  // Selected pairs / all pairs.
  double density() const;
  bool operator==(const SegmentTable&) const = default;
};

// Every query block attends to every KV block.
SegmentTable make_dense_table(int batch, int heads, int query_blocks, int kv_blocks);

// Where a KV block's rows are. rows == 0: the block is not available in this pass and is skipped.
struct KvBlock {
  int32_t buffer = 0;     // index into the KV buffers of the call
  int32_t rows = 0;       // valid rows
  int64_t first_row = 0;  // in that buffer
  double bias = 0;        // added to every logit of the block (ln of a pooling width)
  bool operator==(const KvBlock&) const = default;
};

// Locations by block id: one list for all (batch, head), or one list for each.
struct KvBlockMap {
  int kv_blocks = 0;
  bool per_head = false;
  std::vector<KvBlock> blocks;  // [kv_blocks] or [batch * heads * kv_blocks]

  const KvBlock& at(int64_t batch_head, int block) const {
    return blocks[per_head ? batch_head * kv_blocks + block : block];
  }
};

}  // namespace sprocket::kernels
