// Which rows a thread block of family sm_90 serves, what it streams, and where that lies: the
// integer logic of its kernels, without the device.
//
// A thread block has two warpgroups of 64 rows each that compute, four of them where it sums query
// gradients. Query blocks of up to 128 rows take two warpgroups, of up to 64 one, of up to 32 half
// of one; so a thread block serves neighbouring query blocks of a head, 1 to 8 of them. It loads
// the union of their lists, each tile once.
#pragma once

#include <cstdint>

#include "kernels/cuda/host_device.h"
#include "kernels/cuda/segment_attention_tiles.h"

namespace sprocket::kernels::cuda {

inline constexpr int kTileRows = 64;   // of what is loaded
inline constexpr int kGroupRows = 64;  // of a warpgroup
inline constexpr int kWarpRows = 16;
inline constexpr int kGroups = 2;
inline constexpr int kQueryGradientGroups = 4;

// Query blocks of a thread block, for tiles of `query_rows` (query_tile_rows).
SPROCKET_HOST_DEVICE constexpr int blocks_together(int query_rows, int groups = kGroups) {
  return groups * kGroupRows / query_rows;
}

// Which of them the rows of a warp belong to, and the first of those rows in it.
SPROCKET_HOST_DEVICE constexpr int block_of_warp(int warp, int query_rows) {
  return warp * kWarpRows / query_rows;
}
SPROCKET_HOST_DEVICE constexpr int first_row_of_warp(int warp, int query_rows) {
  return warp * kWarpRows % query_rows;
}

// A bit for each of them that the warpgroup has rows of.
SPROCKET_HOST_DEVICE constexpr unsigned blocks_of_group(int group, int query_rows) {
  if (query_rows >= kGroupRows) return 1u << group * kGroupRows / query_rows;
  const int blocks = kGroupRows / query_rows;
  return ((1u << blocks) - 1) << group * blocks;
}

// The end of a list. No block has this id.
inline constexpr int kNoBlock = 0x7fffffff;

// Elements of a panel's row: as wide as the swizzle of 128 bytes.
inline constexpr int kPanelColumns = 64;

// A tile in shared memory, of keys, values or queries: panels of 64 columns, [panel][row][64], each
// panel with its 16-byte pieces exchanged by row, as tensor maps and descriptors call a swizzle of
// 128 bytes. The place of an element, a tile at a multiple of 1 KiB.
SPROCKET_HOST_DEVICE constexpr int place_in_tile(int row, int column) {
  const int panel = column / kPanelColumns, piece = column % kPanelColumns / 8;
  return (panel * kTileRows + row) * kPanelColumns + (piece ^ row % 8) * 8 + column % 8;
}

// What a tensor map says of a tensor and of its tiles. Dimensions from the innermost:
// column of a panel, row, panel, head, batch. Panels are swizzled over their width.
struct TileMap {
  static constexpr int kRank = 5;
  uint64_t extents[kRank];
  uint64_t strides[kRank - 1];  // of dimensions 1 to 4, in bytes
  uint32_t box[kRank];
};

inline constexpr uint64_t kMapRows = uint64_t{1} << 31;

// Of queries, keys or values: 16-bit elements; strides in elements. A dimension that everybody
// shares (stride 0) has extent 1. The tensor has as many rows as coordinates allow: who copies a
// tile knows that its rows exist.
constexpr TileMap tile_map(int64_t row_stride, int64_t head_stride, int64_t batch_stride,
                           int head_dim, int heads, int batch) {
  const auto bytes = [](int64_t stride) {
    return stride == 0 ? uint64_t{16} : 2 * static_cast<uint64_t>(stride);
  };
  const auto extent = [](int64_t stride, int count) {
    return stride == 0 ? uint64_t{1} : static_cast<uint64_t>(count);
  };
  const auto panels = static_cast<uint32_t>(head_dim / kPanelColumns);
  return {
      {kPanelColumns, kMapRows, panels, extent(head_stride, heads), extent(batch_stride, batch)},
      {bytes(row_stride), 2 * kPanelColumns, bytes(head_stride), bytes(batch_stride)},
      {kPanelColumns, kTileRows, panels, 1, 1}};
}

// Columns of the slots of pairs that one load gets: the queries of a warpgroup, or half of them.
SPROCKET_HOST_DEVICE constexpr int slot_panel_columns(int query_rows) {
  return query_rows < kGroupRows ? query_rows : kGroupRows;
}

// Of the slots of pairs (PairSlot), one under the other: a row is a key of a tile, a panel what one
// load gets. Row `slot_rows`, past the last, is one of zeros.
constexpr uint64_t slot_rows(int key_tiles, int64_t slots) {
  return static_cast<uint64_t>(slots) * static_cast<uint64_t>(key_tiles * kKeyTileRows);
}
constexpr TileMap slot_map(const PairSlot& slot, int64_t slots) {
  const auto columns = static_cast<uint32_t>(slot_panel_columns(slot.query_rows));
  const auto panels = static_cast<uint64_t>(slot.query_rows) / columns;
  const uint64_t row_bytes = 2 * static_cast<uint64_t>(slot.query_rows);
  return {{columns, slot_rows(slot.key_tiles, slots), panels, 1, 1},
          {row_bytes, 2 * uint64_t{columns}, 16, 16},
          {columns, kTileRows, 1, 1, 1}};
}

// The coordinate of a head or batch in a dimension of that stride.
SPROCKET_HOST_DEVICE constexpr int map_coordinate(int index, int64_t stride) {
  return stride == 0 ? 0 : index;
}

}  // namespace sprocket::kernels::cuda
