#include "kernels/segment_attention_plan.h"

#include <algorithm>
#include <limits>

namespace sprocket::kernels {
namespace {

// Rows of a block that take part.
int usable_rows(const KvBlock& block) {
  return block.bias == -std::numeric_limits<float>::infinity() ? 0 : block.rows;
}

}  // namespace

PlanSizes plan_sizes(const PlanSource& source) {
  PlanSizes sizes;
  const KvBlockMap& map = *source.map;
  const int64_t lists =
      map.kv_blocks == 0 ? 0 : static_cast<int64_t>(map.blocks.size()) / map.kv_blocks;
  for (int64_t list = 0; list < lists; ++list) {
    int64_t tiles = 0, rows = 0;
    for (int id = 0; id < map.kv_blocks; ++id) {
      const int usable = usable_rows(map.blocks[list * map.kv_blocks + id]);
      tiles += (usable + kTileRows - 1) / kTileRows;
      rows += round_up(usable, 2);
    }
    sizes.key_tiles = std::max(sizes.key_tiles, tiles);
    sizes.packed_rows = std::max(sizes.packed_rows, rows);
  }
  for (size_t i = 0; i + 1 < source.query_offsets.size(); ++i) {
    const int64_t rows = source.query_offsets[i + 1] - source.query_offsets[i];
    sizes.query_tiles += std::max<int64_t>(1, (rows + kMaxColumns - 1) / kMaxColumns);
    sizes.packed_queries += (rows + 15) / 16 * 16;
  }
  return sizes;
}

HeadPlan::HeadPlan(const PlanSource& source, const PlanSizes& sizes, WorkspaceArena& arena)
    : source_(source),
      used_(arena.take<bool>(source.table->kv_blocks)),
      first_key_tile_(arena.take<int32_t>(source.table->kv_blocks + 1)),
      key_tiles_(arena.take<KeyTile>(sizes.key_tiles)),
      query_tiles_(arena.take<QueryTile>(sizes.query_tiles)) {}

void HeadPlan::build(int64_t batch_head) {
  batch_head_ = batch_head;
  build_query_tiles();
  build_key_tiles();
}

// Also finds the blocks in use.
void HeadPlan::build_query_tiles() {
  const int query_blocks = source_.table->query_blocks;
  std::fill_n(used_, kv_blocks(), false);
  query_tile_count_ = 0;
  int64_t packed_row = 0;
  for (int block = 0; block < query_blocks; ++block) {
    const int64_t first = source_.query_offsets[block];
    const int64_t all = source_.query_offsets[block + 1] - first;
    const int64_t rows =
        source_.query_rows.empty() ? all : source_.query_rows[batch_head_ * query_blocks + block];
    int64_t keys = 0;
    if (rows > 0) {
      for (int id : listed(block, 0, kv_blocks())) {
        const int usable = usable_rows(this->block(id));
        used_[id] = usable > 0;
        keys += usable;
      }
    }
    int64_t row = 0;
    do {
      const int taken = static_cast<int>(std::min<int64_t>(kMaxColumns, rows - row));
      const int columns = round_up(taken, 16);
      const bool last = row + taken == rows;
      query_tiles_[query_tile_count_++] = {first + row,
                                           packed_row,
                                           columns * keys,
                                           block,
                                           taken,
                                           columns,
                                           static_cast<int32_t>(last ? all - rows : 0)};
      packed_row += columns;
      row += taken;
    } while (row < rows);
  }
}

void HeadPlan::build_key_tiles() {
  int32_t count = 0;
  int64_t offset = 0;
  first_key_tile_[0] = 0;
  for (int id = 0; id < kv_blocks(); ++id) {
    const int usable = used_[id] ? usable_rows(block(id)) : 0;
    for (int row = 0; row < usable; row += kTileRows) {
      const int rows = std::min(kTileRows, usable - row);
      key_tiles_[count++] = {rows, offset};
      offset += round_up(rows, 2);
    }
    first_key_tile_[id + 1] = count;
  }
}

std::span<const int32_t> HeadPlan::listed(int query_block, int first_key, int last_key) const {
  const SegmentTable& table = *source_.table;
  const int64_t row = batch_head_ * table.query_blocks + query_block;
  const int32_t* const begin = table.kv_block.data() + table.row_offsets[row];
  const int32_t* const end = table.kv_block.data() + table.row_offsets[row + 1];
  const int32_t* const first = std::lower_bound(begin, end, first_key);
  return {first, std::lower_bound(first, end, last_key)};
}

ListWalk::ListWalk(const HeadPlan& plan, std::span<const QueryTile> tiles, int first_key,
                   int last_key)
    : count_(static_cast<int>(tiles.size())) {
  for (int i = 0; i < count_; ++i) {
    std::span<const int32_t> list;
    if (tiles[i].rows > 0) list = plan.listed(tiles[i].block, first_key, last_key);
    at_[i] = list.data();
    end_[i] = list.data() + list.size();
    if (at_[i] != end_[i]) block_ = std::min(block_, *at_[i]);
  }
  find();
}

void ListWalk::advance() {
  block_ = following_;
  find();
}

// Takes block_ from the lists that begin with it.
void ListWalk::find() {
  following_ = kNone;
  for (int i = 0; i < count_; ++i) {
    member_[i] = at_[i] != end_[i] && *at_[i] == block_;
    if (member_[i]) ++at_[i];
    if (at_[i] != end_[i]) following_ = std::min(following_, *at_[i]);
  }
}

}  // namespace sprocket::kernels
