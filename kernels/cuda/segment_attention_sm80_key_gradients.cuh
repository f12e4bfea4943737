// First pass of the backward of family sm_80: a thread block keeps 64 rows of a KV block, and the
// query blocks that list it go by in tiles. Scores are computed transposed, keys by queries, so
// that the weights are already the left operand of dV += P^T dO and dK += dS^T Q and stay in
// registers.
#pragma once

#include "kernels/cuda/segment_attention_columns.cuh"
#include "kernels/cuda/segment_attention_slots.cuh"
#include "kernels/cuda/segment_attention_sm80_tiles.cuh"

namespace sprocket::kernels::cuda::sm80 {

template <Element kElement_, int kHeadDim_, int kQueryRows_>
struct KeyGradientKernel {
  using T = ElementType<kElement_>;
  static constexpr int kHeadDim = kHeadDim_;
  static constexpr int kQueryRows = kQueryRows_;  // of a tile
  static constexpr int kWarps = kKeyTileRows / 16;
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kStages = 2;
  using Mma = typename WarpMma<T, kWarps>::Type;
  static_assert(2 * kQueryRows <= kThreads);  // a thread for each row's LSE and delta

  struct Queries {
    int first_row;
    int slot;
    int rows;
  };
  using Queue = TileQueue<Queries, kThreads, kQueryRows>;

  struct alignas(128) Shared {
    alignas(128) T k[kKeyTileRows * kHeadDim];
    alignas(128) T v[kKeyTileRows * kHeadDim];
    alignas(128) T q[kStages][kQueryRows * kHeadDim];
    alignas(128) T dout[kStages][kQueryRows * kHeadDim];
    float statistics[kStages][2 * kQueryRows];  // LSE in base 2, delta
    typename Queue::Storage queue;
  };

  __device__ static void copy_queries(const BackwardArguments& arguments, const KeyColumn& column,
                                      const Queries& queries, int tile, T* q, T* dout) {
    const SegmentAttentionProblem& problem = arguments.problem;
    const int rows = rows_of_tile(queries.rows, kQueryRows, tile);
    const int64_t row = queries.first_row + tile * kQueryRows;
    copy_rows<kThreads, kQueryRows, kHeadDim>(
        row_of<const T>(problem.q, column.batch, row, column.head), problem.q.row_stride, rows, q);
    copy_rows<kThreads, kQueryRows, kHeadDim>(
        row_of<const T>(arguments.dout, column.batch, row, column.head), arguments.dout.row_stride,
        rows, dout);
  }

  // The thread's LSE or delta. Rows that do not exist and rows without keys have weights 0.
  __device__ static float load_statistic(const BackwardArguments& arguments,
                                         const KeyColumn& column, const Queries& queries,
                                         int tile) {
    const int row = threadIdx.x % kQueryRows;
    const bool is_lse = threadIdx.x < kQueryRows;
    if (threadIdx.x >= 2 * kQueryRows || row >= rows_of_tile(queries.rows, kQueryRows, tile)) {
      return is_lse ? -negative_infinity() : 0;
    }
    const int64_t index = statistic_index(arguments.problem, column.batch_head,
                                          queries.first_row + tile * kQueryRows + row);
    if (!is_lse) return arguments.delta[index];
    return weight_base(arguments.lse[index]);
  }

  __device__ static void run(const BackwardArguments& arguments, Shared& shared) {
    const SegmentAttentionProblem& problem = arguments.problem;
    const DeviceTable& table = problem.table;
    const PairSlot slot = pair_slot(problem.max_query_rows, problem.max_kv_rows);
    const int block = blockIdx.x / slot.key_tiles % table.kv_blocks;
    const int batch_head = problem.first_head + blockIdx.x / slot.key_tiles / table.kv_blocks;
    const KeyColumn column = locate_column(problem, batch_head, block, blockIdx.x % slot.key_tiles);
    if (column.rows <= 0) return;
    const ColumnList list = column_list(arguments, batch_head, block);
    if (list.first == list.last) return;

    const int32_t base = first_pair(arguments);
    const auto make = [&](int64_t place, Queries& queries) {
      const QueryBlock query =
          query_block(problem, batch_head, arguments.inverse.query_block[place]);
      queries = {static_cast<int>(query.first), arguments.inverse.pair[place] - base, query.used};
      return query.used > 0;
    };
    Queue queue(shared.queue, list.first, list.last);
    Queries next;
    int next_tile;
    bool more = queue.next(next, next_tile, make);
    if (!more) return;

    const DeviceKvBuffer& buffer = problem.kv[column.buffer];
    copy_rows<kThreads, kKeyTileRows, kHeadDim>(
        row_of<const T>(buffer.k, column.batch, column.first_row, column.head), buffer.k.row_stride,
        column.rows, shared.k);
    copy_rows<kThreads, kKeyTileRows, kHeadDim>(
        row_of<const T>(buffer.v, column.batch, column.first_row, column.head), buffer.v.row_stride,
        column.rows, shared.v);
    copy_queries(arguments, column, next, next_tile, shared.q[0], shared.dout[0]);
    cp_async_fence();
    float statistic = load_statistic(arguments, column, next, next_tile);

    const Mma mma;
    auto dk = partition_fragment_C(mma, Shape<Int<kKeyTileRows>, Int<kHeadDim>>{});
    auto dv = partition_fragment_C(mma, Shape<Int<kKeyTileRows>, Int<kHeadDim>>{});
    clear(dk);
    clear(dv);
    const auto k = tile_at<T, kKeyTileRows, kHeadDim>(shared.k);
    const auto v = tile_at<T, kKeyTileRows, kHeadDim>(shared.v);
    const float scale2 = problem.scale * kLog2E;
    const int first_row = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4;

    for (int stage = 0; more; stage ^= 1) {
      const Queries now = next;
      const int tile = next_tile;
      if (now.slot >= arguments.slot_count) __trap();  // a row lists more than max_row_pairs blocks
      if (threadIdx.x < 2 * kQueryRows) shared.statistics[stage][threadIdx.x] = statistic;
      // Every warp is past the tile before this one, whose memory the next one takes.
      cp_async_wait<0>();
      __syncthreads();
      more = queue.next(next, next_tile, make);
      if (more) {
        copy_queries(arguments, column, next, next_tile, shared.q[stage ^ 1],
                     shared.dout[stage ^ 1]);
        statistic = load_statistic(arguments, column, next, next_tile);
      }
      cp_async_fence();
      __syncwarp();  // threads without a query have gone another way; ldmatrix wants them all
      auto scores = partition_fragment_C(mma, Shape<Int<kKeyTileRows>, Int<kQueryRows>>{});
      auto dweights = partition_fragment_C(mma, Shape<Int<kKeyTileRows>, Int<kQueryRows>>{});
      clear(scores);
      clear(dweights);
      multiply<LoadRows<T>, LoadRows<T>>(scores, k,
                                         tile_at<T, kQueryRows, kHeadDim>(shared.q[stage]), mma);
      multiply<LoadRows<T>, LoadRows<T>>(dweights, v,
                                         tile_at<T, kQueryRows, kHeadDim>(shared.dout[stage]), mma);
      const float* statistics = shared.statistics[stage];
      differentiate(scores, dweights, statistics, statistics + kQueryRows, first_row, column.rows,
                    scale2, column.bias2);
      __syncwarp();  // those without a key, too
      multiply_registers<LoadTransposed<T>>(
          dv, round_to_left<T>(scores),
          transposed_tile_at<T, kQueryRows, kHeadDim>(shared.dout[stage]), mma);
      const auto dscores = round_to_left<T>(dweights);
      store_slot(dscores,
                 static_cast<T*>(arguments.slots) + now.slot * slot.elements() +
                     column.tile * slot.tile_elements() + tile * kQueryRows,
                 first_row, slot.query_rows);
      multiply_registers<LoadTransposed<T>>(
          dk, dscores, transposed_tile_at<T, kQueryRows, kHeadDim>(shared.q[stage]), mma);
    }
    add_to_rows(arguments.dkv[column.buffer].dk, column, first_row, dk, problem.scale);
    add_to_rows(arguments.dkv[column.buffer].dv, column, first_row, dv, 1);
  }
};

}  // namespace sprocket::kernels::cuda::sm80
