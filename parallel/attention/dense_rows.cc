#include "parallel/attention/dense_rows.h"

#include <algorithm>
#include <map>

namespace sprocket::parallel {
namespace {

constexpr int64_t kFewestKeys = 2;

bool takes_all_heads(const kernels::SegmentTable& table,
                     const std::optional<kernels::HeadRange>& heads) {
  return !heads || (heads->first == 0 && heads->last == int64_t{table.batch} * table.heads);
}

bool takes_all_queries(const QuerySide& query) {
  const int64_t rows = query.q_BLHD.size(1);
  return query.query_rows.empty() && rows > 0 && query.query_offsets.front() == 0 &&
         query.query_offsets.back() == rows;
}

bool selects_all(const kernels::SegmentTable& table, const kernels::KvBlockMap& map) {
  if (std::ssize(table.kv_block) == table.rows() * table.kv_blocks) return true;
  const auto is_there = [&](int32_t block) { return map.blocks[block].rows > 0; };
  int64_t there = 0;
  for (const kernels::KvBlock& block : map.blocks) there += block.rows > 0 ? 1 : 0;
  for (int64_t row = 0; row < table.rows(); ++row) {
    const auto first = table.kv_block.begin() + table.row_offsets[row],
               last = table.kv_block.begin() + table.row_offsets[row + 1];
    if (std::count_if(first, last, is_there) != there) return false;
  }
  return true;
}

// The run of rows that the blocks make up; a count of 0 where they do not.
DenseRows run_of(int buffer, std::vector<kernels::KvBlock> blocks) {
  std::ranges::sort(blocks, {}, &kernels::KvBlock::first_row);
  DenseRows run{buffer, blocks.front().first_row, 0};
  for (const kernels::KvBlock& block : blocks) {
    if (block.first_row != run.first + run.count) return {};
    run.count += block.rows;
  }
  return run;
}

}  // namespace

std::optional<std::vector<DenseRows>> dense_rows(const QuerySide& query,
                                                 const kernels::KvBlockMap& map,
                                                 const std::optional<kernels::HeadRange>& heads) {
  const kernels::SegmentTable& table = *query.table;
  if (map.per_head || !takes_all_heads(table, heads) || !takes_all_queries(query) ||
      !selects_all(table, map)) {
    return {};
  }
  std::map<int, std::vector<kernels::KvBlock>> by_buffer;
  for (const kernels::KvBlock& block : map.blocks) {
    if (block.rows == 0) continue;
    if (block.bias != 0) return {};
    by_buffer[block.buffer].push_back(block);
  }
  if (by_buffer.empty()) return {};
  std::vector<DenseRows> runs;
  for (auto& [buffer, blocks] : by_buffer) {
    runs.push_back(run_of(buffer, std::move(blocks)));
    if (runs.back().count < kFewestKeys) return {};
  }
  return runs;
}

}  // namespace sprocket::parallel
