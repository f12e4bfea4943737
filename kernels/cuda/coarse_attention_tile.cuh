// What forward and backward of the coarse attention share.
#pragma once

#include "kernels/cuda/coarse_attention.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/row_tile.cuh"
#include "kernels/cuda/tile_shape.cuh"

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

}  // namespace sprocket::kernels::cuda
