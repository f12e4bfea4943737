#include "kernels/table_rows.h"

#include <algorithm>

#include "base/error.h"

namespace sprocket::kernels {

TableRows::TableRows(int batch, int heads, int query_blocks, int kv_blocks, int threads)
    : shape_{batch, heads, query_blocks, kv_blocks, {}, {}},
      threads_(threads),
      places_(shape_.rows()),
      lists_(threads) {}

void TableRows::add(int thread, int64_t row, std::span<const int32_t> ids) {
  std::vector<int32_t>& list = lists_[thread];
  places_[row] = {thread, static_cast<int32_t>(ids.size()), static_cast<int64_t>(list.size())};
  list.insert(list.end(), ids.begin(), ids.end());
}

SegmentTable TableRows::table() const {
  SegmentTable table = shape_;
  const int64_t rows = table.rows();
  table.row_offsets.assign(rows + 1, 0);
  for (int64_t row = 0; row < rows; ++row) {
    SPROCKET_CHECK(places_[row].thread >= 0, "row {} of {} has not been added", row, rows);
    table.row_offsets[row + 1] = table.row_offsets[row] + places_[row].count;
  }
  table.kv_block.resize(table.row_offsets[rows]);
#pragma omp parallel for num_threads(threads_)
  for (int64_t row = 0; row < rows; ++row) {
    const Place& place = places_[row];
    std::copy_n(lists_[place.thread].begin() + place.first, place.count,
                table.kv_block.begin() + table.row_offsets[row]);
  }
  return table;
}

}  // namespace sprocket::kernels
