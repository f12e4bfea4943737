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

InverseTable invert(const SegmentTable& table) {
  const int64_t heads = static_cast<int64_t>(table.batch) * table.heads;
  InverseTable inverse;
  inverse.row_offsets.assign(heads * table.kv_blocks + 1, 0);
  inverse.query_block.resize(table.kv_block.size());
  const auto for_each_entry = [&](auto&& visit) {
    for (int64_t row = 0; row < table.rows(); ++row) {
      const int64_t head = row / table.query_blocks;
      for (int64_t i = table.row_offsets[row]; i < table.row_offsets[row + 1]; ++i) {
        visit(head * table.kv_blocks + table.kv_block[i],
              static_cast<int32_t>(row % table.query_blocks));
      }
    }
  };
  for_each_entry([&](int64_t target, int32_t) { ++inverse.row_offsets[target + 1]; });
  std::partial_sum(inverse.row_offsets.begin(), inverse.row_offsets.end(),
                   inverse.row_offsets.begin());
  std::vector<int64_t> next(inverse.row_offsets.begin(), inverse.row_offsets.end() - 1);
  for_each_entry([&](int64_t target, int32_t query_block) {
    inverse.query_block[next[target]++] = query_block;
  });
  return inverse;
}

}  // namespace sprocket::kernels
