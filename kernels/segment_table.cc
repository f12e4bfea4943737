#include "kernels/segment_table.h"

#include <numeric>

namespace sprocket::kernels {

std::span<const int32_t> SegmentTable::row(int batch_index, int head, int query_block) const {
  const int64_t index =
      (static_cast<int64_t>(batch_index) * heads + head) * query_blocks + query_block;
  return {kv_block.data() + row_offsets[index],
          static_cast<size_t>(row_offsets[index + 1] - row_offsets[index])};
}

double SegmentTable::density() const {
  const double pairs = static_cast<double>(rows()) * kv_blocks;
  return pairs == 0 ? 0 : static_cast<double>(kv_block.size()) / pairs;
}

SegmentTable make_dense_table(int batch, int heads, int query_blocks, int kv_blocks) {
  SegmentTable table{batch, heads, query_blocks, kv_blocks, {}, {}};
  const int64_t rows = table.rows();
  table.row_offsets.resize(rows + 1);
  table.kv_block.resize(rows * kv_blocks);
  for (int64_t row = 0; row < rows; ++row) {
    table.row_offsets[row + 1] = (row + 1) * kv_blocks;
    const auto first = table.kv_block.begin() + row * kv_blocks;
    std::iota(first, first + kv_blocks, 0);
  }
  return table;
}

}  // namespace sprocket::kernels
