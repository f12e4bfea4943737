// How the work of one (batch, head) is cut into tiles: at most 64 keys by 64 queries.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/segment_attention_workspace.h"
#include "kernels/segment_table.h"
#include "kernels/tile_ops.h"

namespace sprocket::kernels {

inline constexpr int kTileRows = 64;
inline constexpr int kMaxGroupTiles = 8;
inline constexpr double kLog2E = 1.44269504088896341;

constexpr int round_up(int value, int multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// A piece of a KV block.
struct KeyTile {
  int32_t rows;    // 1..kTileRows
  int64_t offset;  // in rows, of the packed copies; even
};

// A piece of a query block.
struct QueryTile {
  int64_t first_row;
  int64_t packed_row;  // columns of the tiles before
  int64_t weight;      // query columns x listed keys
  int32_t block;
  int32_t rows;     // 0..kMaxColumns
  int32_t columns;  // rows rounded up to 16
  int32_t skipped;  // rows of the block after these that take no part
};

// What the plans of a call take at most.
struct PlanSizes {
  int64_t key_tiles = 0;
  int64_t packed_rows = 0;  // sum of the key tiles' rows, each rounded up to even
  int64_t query_tiles = 0;
  int64_t packed_queries = 0;  // sum of columns
};

// What a plan is made from; the arrays outlive it.
struct PlanSource {
  const SegmentTable* table;
  const KvBlockMap* map;
  std::span<const int64_t> query_offsets;
  std::span<const int32_t> query_rows;  // empty: all rows
};

PlanSizes plan_sizes(const PlanSource& source);

// The tiles of one (batch, head). Only KV blocks that a query block lists have any.
class HeadPlan {
 public:
  HeadPlan(const PlanSource& source, const PlanSizes& sizes, WorkspaceArena& arena);

  void build(int64_t batch_head);

  int64_t batch_head() const { return batch_head_; }
  int64_t batch() const { return batch_head_ / source_.table->heads; }
  int64_t head() const { return batch_head_ % source_.table->heads; }
  int kv_blocks() const { return source_.table->kv_blocks; }
  const KvBlock& block(int id) const { return source_.map->at(batch_head_, id); }

  std::span<const KeyTile> key_tiles(int block) const {
    return {key_tiles_ + first_key_tile_[block],
            static_cast<size_t>(first_key_tile_[block + 1] - first_key_tile_[block])};
  }
  std::span<const QueryTile> query_tiles() const {
    return {query_tiles_, static_cast<size_t>(query_tile_count_)};
  }
  // The blocks in [first_key, last_key) that a query block lists, ascending.
  std::span<const int32_t> listed(int query_block, int first_key, int last_key) const;

 private:
  void build_query_tiles();
  void build_key_tiles();

  PlanSource source_;
  int64_t batch_head_ = 0;
  bool* used_;               // [kv_blocks]
  int32_t* first_key_tile_;  // [kv_blocks + 1]
  KeyTile* key_tiles_;
  QueryTile* query_tiles_;
  int query_tile_count_ = 0;
};

// Several query tiles' lists walked together, in ascending order of blocks, so that all tiles that
// list a block meet it while it is in the cache. Whatever tiles are walked together, each meets its
// own blocks in ascending order, and each block meets its tiles in ascending order.
class ListWalk {
 public:
  // At most kMaxGroupTiles tiles; those without rows list nothing.
  ListWalk(const HeadPlan& plan, std::span<const QueryTile> tiles, int first_key, int last_key);

  bool done() const { return block_ == kNone; }
  int block() const { return block_; }
  // Whether the block is in the tile's list.
  bool lists(int tile) const { return member_[tile]; }
  // The next block of the walk; block() itself at the end.
  int following() const { return following_ == kNone ? block_ : following_; }
  void advance();

 private:
  static constexpr int kNone = 0x7fffffff;
  void find();

  int count_;
  int block_ = kNone, following_ = kNone;
  const int32_t* at_[kMaxGroupTiles];
  const int32_t* end_[kMaxGroupTiles];
  bool member_[kMaxGroupTiles];
};

}  // namespace sprocket::kernels
