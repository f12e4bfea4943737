// First pass of the backward of family sm_80: a thread block keeps 64 rows of a KV block, and the
// query blocks that list it go by in tiles. Scores are computed transposed, keys by queries, so
// that the weights are already the left operand of dV += P^T dO and dK += dS^T Q and stay in
// registers.
#pragma once

#include "kernels/cuda/segment_attention_device.cuh"
#include "kernels/cuda/segment_attention_launch.h"
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
  static constexpr int kScoreTiles = kQueryRows / 8;  // of 8 columns
  static constexpr int kGradientTiles = kHeadDim / 8;
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

  struct Column {
    int batch_head, batch, head;
    int tile;  // of the KV block
    int rows;  // of the tile
    int64_t first_row;
    int buffer;
    float bias2;
  };

  __device__ static void copy_queries(const BackwardArguments& arguments, const Column& column,
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
  __device__ static float load_statistic(const BackwardArguments& arguments, const Column& column,
                                         const Queries& queries, int tile) {
    const int row = threadIdx.x % kQueryRows;
    const bool is_lse = threadIdx.x < kQueryRows;
    if (threadIdx.x >= 2 * kQueryRows || row >= rows_of_tile(queries.rows, kQueryRows, tile)) {
      return is_lse ? -negative_infinity() : 0;
    }
    const int64_t index = statistic_index(arguments.problem, column.batch_head,
                                          queries.first_row + tile * kQueryRows + row);
    if (!is_lse) return arguments.delta[index];
    const float lse = arguments.lse[index];
    return lse == negative_infinity() ? -negative_infinity() : lse * kLog2E;
  }

  // Scores become weights, and dweights their gradient of the scores (without the scale).
  template <class Scores>
  __device__ static void differentiate(Scores& scores, Scores& dweights, const float* statistics,
                                       int rows, float scale2, float bias2) {
    const int lane = threadIdx.x % 32, first = threadIdx.x / 32 * 16 + lane / 4;
    CUTE_UNROLL
    for (int n = 0; n < kScoreTiles; ++n) {
      const int column = 8 * n + lane % 4 * 2;
      const float2 lse2 = *reinterpret_cast<const float2*>(statistics + column);
      const float2 delta = *reinterpret_cast<const float2*>(statistics + kQueryRows + column);
      const float offset[2] = {bias2 - lse2.x, bias2 - lse2.y};
      const float deltas[2] = {delta.x, delta.y};
      CUTE_UNROLL
      for (int i = 0; i < 4; ++i) {
        const bool valid = first + i / 2 * 8 < rows;
        const float weight = valid ? exp2_fast(fmaf(scores(i, 0, n), scale2, offset[i % 2])) : 0.0f;
        scores(i, 0, n) = weight;
        dweights(i, 0, n) = valid ? weight * (dweights(i, 0, n) - deltas[i % 2]) : 0.0f;
      }
    }
  }

  // Rounded gradients of the scores to the pair's slot, columns exchanged: 16 bytes for each row
  // and 32 columns.
  template <class Left>
  __device__ static void store_slot(const Left& dscores, T* slot, int query_rows) {
    const int lane = threadIdx.x % 32, first = threadIdx.x / 32 * 16 + lane / 4;
    CUTE_UNROLL
    for (int group = 0; group < kQueryRows / 32; ++group) {
      CUTE_UNROLL
      for (int r = 0; r < 2; ++r) {
        cutlass::Array<T, 8> piece;
        CUTE_UNROLL
        for (int n = 0; n < 4; ++n) {
          CUTE_UNROLL
          for (int i = 0; i < 2; ++i) {
            // Value (i, r, n % 2) of the operand's step n / 2.
            piece[2 * n + i] = dscores(i + 2 * r + 4 * (n % 2), 0, 2 * group + n / 2);
          }
        }
        *reinterpret_cast<cutlass::AlignedArray<T, 8>*>(slot + (first + 8 * r) * query_rows +
                                                        32 * group + lane % 4 * 8) =
            *reinterpret_cast<const cutlass::AlignedArray<T, 8>*>(&piece);
      }
    }
  }

  template <class Sums>
  __device__ static void add(const DeviceRows<float>& to, const Column& column, const Sums& sums,
                             float factor) {
    const int lane = threadIdx.x % 32, first = threadIdx.x / 32 * 16 + lane / 4;
    CUTE_UNROLL
    for (int r = 0; r < 2; ++r) {
      if (first + 8 * r >= column.rows) continue;
      float* row = row_of<float>(to, column.batch, column.first_row + first + 8 * r, column.head);
      CUTE_UNROLL
      for (int n = 0; n < kGradientTiles; ++n) {
        float2* pair = reinterpret_cast<float2*>(row + 8 * n + lane % 4 * 2);
        const float2 former = *pair;
        *pair = make_float2(fmaf(sums(2 * r, 0, n), factor, former.x),
                            fmaf(sums(2 * r + 1, 0, n), factor, former.y));
      }
    }
  }

  __device__ static Column locate(const BackwardArguments& arguments, int block, int tile,
                                  int batch_head) {
    const SegmentAttentionProblem& problem = arguments.problem;
    const DeviceKvBlock kv = kv_block(problem, batch_head, block);
    Column column;
    column.batch_head = batch_head;
    column.batch = batch_head / problem.table.heads;
    column.head = batch_head % problem.table.heads;
    column.tile = tile;
    column.rows = rows_of_tile(kv.rows, kKeyTileRows, tile);
    column.first_row = kv.first_row + int64_t{tile} * kKeyTileRows;
    column.buffer = kv.buffer;
    column.bias2 = kv.bias * kLog2E;
    return column;
  }

  __device__ static void run(const BackwardArguments& arguments, Shared& shared) {
    const SegmentAttentionProblem& problem = arguments.problem;
    const DeviceTable& table = problem.table;
    const PairSlot slot = pair_slot(problem.max_query_rows, problem.max_kv_rows);
    const int block = blockIdx.x / slot.key_tiles % table.kv_blocks;
    const int batch_head = problem.first_head + blockIdx.x / slot.key_tiles / table.kv_blocks;
    const Column column = locate(arguments, block, blockIdx.x % slot.key_tiles, batch_head);
    if (column.rows <= 0) return;
    const int64_t list = int64_t{batch_head} * table.kv_blocks + block;
    int64_t first = arguments.inverse.column_offsets[list];
    int64_t last = arguments.inverse.column_offsets[list + 1];
    if (arguments.last_query_block - arguments.first_query_block < table.query_blocks) {
      first = lower_bound(arguments.inverse.query_block, first, last, arguments.first_query_block);
      last = lower_bound(arguments.inverse.query_block, first, last, arguments.last_query_block);
    }
    if (first == last) return;

    const int32_t first_pair = table.row_offsets[int64_t{problem.first_head} * table.query_blocks +
                                                 arguments.first_query_block];
    const auto make = [&](int64_t place, Queries& queries) {
      const QueryBlock query =
          query_block(problem, batch_head, arguments.inverse.query_block[place]);
      queries = {static_cast<int>(query.first), arguments.inverse.pair[place] - first_pair,
                 query.used};
      return query.used > 0;
    };
    Queue queue(shared.queue, first, last);
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
      differentiate(scores, dweights, shared.statistics[stage], column.rows, scale2, column.bias2);
      __syncwarp();  // those without a key, too
      multiply_registers<LoadTransposed<T>>(
          dv, round_to_left<T>(scores),
          transposed_tile_at<T, kQueryRows, kHeadDim>(shared.dout[stage]), mma);
      const auto dscores = round_to_left<T>(dweights);
      store_slot(dscores,
                 static_cast<T*>(arguments.slots) + now.slot * slot.elements() +
                     column.tile * slot.tile_elements() + tile * kQueryRows,
                 slot.query_rows);
      multiply_registers<LoadTransposed<T>>(
          dk, dscores, transposed_tile_at<T, kQueryRows, kHeadDim>(shared.q[stage]), mma);
    }
    add(arguments.dkv[column.buffer].dk, column, dk, problem.scale);
    add(arguments.dkv[column.buffer].dv, column, dv, 1);
  }
};

}  // namespace sprocket::kernels::cuda::sm80
