// How many rows a tile of row_tile.cuh has.
#pragma once

#include "kernels/cuda/launch.h"
#include "kernels/cuda/row_tile.cuh"

namespace sprocket::kernels::cuda {

// Rows of a tile, 16, 8 or 4, that keeps `floats` of each row in shared memory: the most, up to
// `most_rows`, of which two blocks of threads fit in a multiprocessor, or 4 if one does.
struct TileShape {
  int rows;
  int64_t bytes;
};
inline TileShape tile_shape(int64_t floats, int64_t columns, int most_rows = 16) {
  constexpr int64_t kReservedOfBlock = 1024;
  const int64_t limit = shared_memory_limit();
  const auto bytes = [&](int rows) { return 4 * (rows * floats + row_tile::stage_floats(rows)); };
  for (const int rows : {16, 8, 4}) {
    if (rows <= most_rows && bytes(rows) <= limit / 2 - kReservedOfBlock)
      return {rows, bytes(rows)};
  }
  SPROCKET_CHECK(bytes(4) <= limit, "rows of {} blocks need {} bytes of shared memory, found {}",
                 columns, bytes(4), limit);
  return {4, bytes(4)};
}

}  // namespace sprocket::kernels::cuda
