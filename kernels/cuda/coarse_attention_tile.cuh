// What forward and backward of the coarse attention share.
#pragma once

#include "kernels/cuda/coarse_attention.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/row_tile.cuh"

namespace sprocket::kernels::cuda {

// What kernels need of a problem.
struct CoarseView {
  int query_blocks, kv_blocks, head_dim;
  float scale;
  const float *qc, *kc, *vc;

  explicit CoarseView(const DeviceCoarseProblem& problem)
      : query_blocks(problem.query_blocks),
        kv_blocks(problem.kv_blocks),
        head_dim(problem.head_dim),
        scale(static_cast<float>(problem.scale)),
        qc(problem.qc),
        kc(problem.kc),
        vc(problem.vc) {}
  __device__ int64_t query(int64_t batch_head, int64_t block) const {
    return (batch_head * query_blocks + block) * head_dim;
  }
  __device__ int64_t key(int64_t batch_head, int64_t block) const {
    return (batch_head * kv_blocks + block) * head_dim;
  }
};

// The tile of a block of threads: `count` rows of one head from `first` on.
struct TileRows {
  int64_t batch_head;
  int first, count;
  __device__ TileRows(int blocks, int rows_of_tile) {
    const int tiles = (blocks + rows_of_tile - 1) / rows_of_tile;
    batch_head = blockIdx.x / tiles;
    first = static_cast<int>(blockIdx.x % tiles) * rows_of_tile;
    count = min(rows_of_tile, blocks - first);
  }
};

inline void check_problem(const DeviceCoarseProblem& p) {
  SPROCKET_CHECK(p.batch >= 0 && p.heads >= 0 && p.query_blocks >= 0 && p.head_dim >= 1,
                 "coarse attention of [{}, {}, {}, {}]", p.batch, p.heads, p.query_blocks,
                 p.head_dim);
  SPROCKET_CHECK(p.first_query_block >= 0 && p.first_query_block <= p.kv_blocks - p.query_blocks,
                 "query blocks {} to {} of {}", p.first_query_block,
                 p.first_query_block + p.query_blocks, p.kv_blocks);
  SPROCKET_CHECK(p.prefix_blocks >= 0 && p.prefix_blocks <= p.kv_blocks,
                 "{} of {} blocks are of the prefix", p.prefix_blocks, p.kv_blocks);
}

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
