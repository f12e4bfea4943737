// Second pass of the backward of family sm_80: a thread block keeps one query block and sums
// dQ = scale dS K over the KV blocks of its list, from the gradients of the scores that the first
// pass left in the workspace.
#pragma once

#include "kernels/cuda/segment_attention_slots.cuh"
#include "kernels/cuda/segment_attention_sm80_tiles.cuh"

namespace sprocket::kernels::cuda::sm80 {

template <Element kElement_, int kHeadDim_, int kQueryRows_>
struct QueryGradientKernel {
  using T = ElementType<kElement_>;
  static constexpr int kHeadDim = kHeadDim_;
  static constexpr int kQueryRows = kQueryRows_;
  static constexpr int kWarps = kQueryRows / 16;
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kStages = 2;
  using Mma = typename WarpMma<T, kWarps>::Type;

  struct Keys {
    int64_t first_row;
    int slot;
    int16_t rows;
    int16_t buffer;
  };
  using Queue = TileQueue<Keys, kThreads, kKeyTileRows>;

  struct alignas(128) Shared {
    alignas(128) T k[kStages][kKeyTileRows * kHeadDim];
    alignas(128) T dscores[kStages][kKeyTileRows * kQueryRows];
    typename Queue::Storage queue;
  };

  __device__ static void copy_keys(const BackwardArguments& arguments, const QueryBlock& query,
                                   const Keys& keys, int tile, T* k, T* dscores) {
    const SegmentAttentionProblem& problem = arguments.problem;
    const PairSlot slot = pair_slot(problem.max_query_rows, problem.max_kv_rows);
    const auto& rows = problem.kv[keys.buffer].k;
    copy_rows<kThreads, kKeyTileRows, kHeadDim>(
        row_of<const T>(rows, query.batch, keys.first_row + int64_t{tile} * kKeyTileRows,
                        query.head),
        rows.row_stride, rows_of_tile(keys.rows, kKeyTileRows, tile), k);
    copy_rows<kThreads, kKeyTileRows, kQueryRows>(static_cast<const T*>(arguments.slots) +
                                                      keys.slot * slot.elements() +
                                                      tile * slot.tile_elements(),
                                                  kQueryRows, kKeyTileRows, dscores);
  }

  __device__ static void run(const BackwardArguments& arguments, Shared& shared) {
    const SegmentAttentionProblem& problem = arguments.problem;
    const int blocks = arguments.last_query_block - arguments.first_query_block;
    const int batch_head = problem.first_head + blockIdx.x / blocks;
    const QueryBlock query =
        query_block(problem, batch_head, arguments.first_query_block + blockIdx.x % blocks);
    if (query.used == 0) return;
    const int32_t base = first_pair(arguments);
    const auto make = [&](int64_t place, Keys& keys) {
      const DeviceKvBlock block = kv_block(problem, batch_head, problem.table.kv_block[place]);
      keys = {block.first_row, static_cast<int>(place - base), static_cast<int16_t>(block.rows),
              static_cast<int16_t>(block.buffer)};
      return block.rows > 0;
    };
    Queue queue(shared.queue, problem.table.row_offsets[query.row],
                problem.table.row_offsets[query.row + 1]);
    Keys next;
    int next_tile;
    bool more = queue.next(next, next_tile, make);
    if (!more) return;
    copy_keys(arguments, query, next, next_tile, shared.k[0], shared.dscores[0]);
    cp_async_fence();

    const Mma mma;
    auto dq = partition_fragment_C(mma, Shape<Int<kQueryRows>, Int<kHeadDim>>{});
    clear(dq);
    for (int stage = 0; more; stage ^= 1) {
      // Every warp is past the tile before this one, whose memory the next one takes.
      cp_async_wait<0>();
      __syncthreads();
      more = queue.next(next, next_tile, make);
      if (more) {
        copy_keys(arguments, query, next, next_tile, shared.k[stage ^ 1],
                  shared.dscores[stage ^ 1]);
      }
      cp_async_fence();
      multiply<LoadTransposed<T>, LoadTransposed<T>>(
          dq, transposed_tile_at<T, kKeyTileRows, kQueryRows>(shared.dscores[stage]),
          transposed_tile_at<T, kKeyTileRows, kHeadDim>(shared.k[stage]), mma);
    }
    add_to_queries(arguments, query, threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4, dq);
  }
};

}  // namespace sprocket::kernels::cuda::sm80
