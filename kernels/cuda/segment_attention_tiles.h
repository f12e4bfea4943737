// How blocks are cut into tiles, and where things lie in them: the integer logic of the device
// kernels, without the device.
#pragma once

#include <cstdint>

#include "kernels/cuda/host_device.h"

namespace sprocket::kernels::cuda {

// KV blocks go by in tiles of at most so many rows.
inline constexpr int kKeyTileRows = 64;

SPROCKET_HOST_DEVICE constexpr int tiles_of(int rows, int tile_rows) {
  return (rows + tile_rows - 1) / tile_rows;
}

// Valid rows of tile `tile`, below 1 for a tile past the end.
SPROCKET_HOST_DEVICE constexpr int rows_of_tile(int rows, int tile_rows, int tile) {
  const int left = rows - tile * tile_rows;
  return left < tile_rows ? left : tile_rows;
}

// Rows of the query tile that serves blocks of up to `rows` rows: one tile for a block.
SPROCKET_HOST_DEVICE constexpr int query_tile_rows(int rows) {
  return rows <= 32 ? 32 : rows <= 64 ? 64 : 128;
}

// A thread of an mma.sync m16n8 product holds columns 8 n + 2 (lane % 4) + {0, 1} of its rows.
// Inside each 32 columns the gradients of the scores are stored with lane % 4 and n exchanged, so
// that the columns of a thread lie side by side: 16 bytes. The exchange is its own inverse.
SPROCKET_HOST_DEVICE constexpr int exchanged_column(int column) {
  const int in_group = column % 32;
  return column - in_group + 8 * (in_group % 8 / 2) + 2 * (in_group / 8) + in_group % 2;
}

// One pair's gradients of the scores in the workspace: [key tiles][64 keys][query columns].
struct PairSlot {
  int key_tiles = 0;
  int query_rows = 0;

  SPROCKET_HOST_DEVICE constexpr int64_t tile_elements() const {
    return int64_t{kKeyTileRows} * query_rows;
  }
  SPROCKET_HOST_DEVICE constexpr int64_t elements() const { return key_tiles * tile_elements(); }
};

SPROCKET_HOST_DEVICE constexpr PairSlot pair_slot(int max_query_rows, int max_kv_rows) {
  return {tiles_of(max_kv_rows, kKeyTileRows), query_tile_rows(max_query_rows)};
}

// First entry of ids[first, last), ascending, that is at least `id`.
SPROCKET_HOST_DEVICE constexpr int64_t lower_bound(const int32_t* ids, int64_t first, int64_t last,
                                                   int id) {
  while (first < last) {
    const int64_t middle = first + (last - first) / 2;
    if (ids[middle] < id) {
      first = middle + 1;
    } else {
      last = middle;
    }
  }
  return first;
}

}  // namespace sprocket::kernels::cuda
