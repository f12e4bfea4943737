#include "parallel/attention/pass_work.h"

#include <algorithm>

#include "parallel/tensor_buffer.h"

namespace sprocket::parallel {
namespace {

kernels::HeadRange range_of(const QuerySide& query,
                            const std::optional<kernels::HeadRange>& heads) {
  return heads.value_or(kernels::HeadRange{0, int64_t{query.table->batch} * query.table->heads});
}

int64_t query_rows(const QuerySide& query, int64_t row) {
  if (!query.query_rows.empty()) return query.query_rows[row];
  const int64_t block = row % query.table->query_blocks;
  return query.query_offsets[block + 1] - query.query_offsets[block];
}

// Of one (batch, head).
std::span<const kernels::KvBlock> blocks_of(const kernels::KvBlockMap& map, int64_t batch_head) {
  return std::span(map.blocks)
      .subspan(map.per_head ? batch_head * map.kv_blocks : 0, map.kv_blocks);
}

int64_t mapped_rows(std::span<const kernels::KvBlock> blocks) {
  int64_t rows = 0;
  for (const kernels::KvBlock& block : blocks) rows += block.rows;
  return rows;
}

bool all_alike(std::span<const kernels::KvBlock> blocks) {
  return std::all_of(blocks.begin(), blocks.end(), [&](const kernels::KvBlock& block) {
    return block.rows == blocks.front().rows;
  });
}

struct Rows {
  double queries = 0, keys = 0;  // of all (batch, head)
};

Rows rows_of(const QuerySide& query, const kernels::KvBlockMap& map,
             const kernels::HeadRange& heads) {
  Rows rows;
  const int64_t blocks = query.table->query_blocks;
  const int64_t shared = map.per_head ? 0 : mapped_rows(map.blocks);
  for (int64_t bh = heads.first; bh < heads.last; ++bh) {
    rows.keys += static_cast<double>(map.per_head ? mapped_rows(blocks_of(map, bh)) : shared);
    for (int64_t block = 0; block < blocks; ++block) {
      rows.queries += static_cast<double>(query_rows(query, bh * blocks + block));
    }
  }
  return rows;
}

// Channels of a row, and the bytes of an element in the type of the queries and of the
// accumulators.
struct Elements {
  double channels, type, accumulator;
};

Elements elements_of(const QuerySide& query) {
  const at::ScalarType type = query.q_BLHD.scalar_type();
  return {static_cast<double>(query.q_BLHD.size(3)), static_cast<double>(c10::elementSize(type)),
          static_cast<double>(c10::elementSize(accumulator_type(type)))};
}

}  // namespace

double pass_pairs(const QuerySide& query, const kernels::KvBlockMap& map,
                  const std::optional<kernels::HeadRange>& heads) {
  const kernels::SegmentTable& table = *query.table;
  const kernels::HeadRange range = range_of(query, heads);
  if (table.kv_blocks == 0) return 0;
  const bool full = std::ssize(table.kv_block) == table.rows() * table.kv_blocks;
  const bool alike = !map.per_head && all_alike(map.blocks);
  double pairs = 0;
  for (int64_t bh = range.first; bh < range.last; ++bh) {
    const std::span<const kernels::KvBlock> blocks = blocks_of(map, bh);
    const int64_t all = full && !alike ? mapped_rows(blocks) : 0;
    for (int64_t row = bh * table.query_blocks; row < (bh + 1) * table.query_blocks; ++row) {
      const int64_t first = table.row_offsets[row], last = table.row_offsets[row + 1];
      int64_t keys = alike ? (last - first) * blocks.front().rows : all;
      if (!alike && !full) {
        for (int64_t i = first; i < last; ++i) keys += blocks[table.kv_block[i]].rows;
      }
      pairs += static_cast<double>(query_rows(query, row)) * static_cast<double>(keys);
    }
  }
  return pairs;
}

Work forward_pass_work(const QuerySide& query, const kernels::KvBlockMap& map,
                       const std::optional<kernels::HeadRange>& heads) {
  const Elements e = elements_of(query);
  const Rows rows = rows_of(query, map, range_of(query, heads));
  return {4 * e.channels * pass_pairs(query, map, heads),
          e.channels * (rows.queries * (e.type + e.accumulator) + rows.keys * 2 * e.type)};
}

Work backward_pass_work(const QuerySide& query, const kernels::KvBlockMap& map,
                        const std::optional<kernels::HeadRange>& heads) {
  const Elements e = elements_of(query);
  const Rows rows = rows_of(query, map, range_of(query, heads));
  return {10 * e.channels * pass_pairs(query, map, heads),
          e.channels * (rows.queries * (2 * e.type + e.accumulator) +
                        rows.keys * 2 * (e.type + e.accumulator))};
}

}  // namespace sprocket::parallel
