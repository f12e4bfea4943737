// Forward of family sm_80: a thread block keeps one query block, and the KV blocks of its list go
// by in tiles of 64 rows, two in shared memory: while one is computed on, the next arrives.
// Queries, scores and output stay in registers.
#pragma once

#include "base/cuda_stream.h"
#include "kernels/cuda/segment_attention_device.cuh"
#include "kernels/cuda/segment_attention_launch.h"
#include "kernels/cuda/segment_attention_sm80_tiles.cuh"

namespace sprocket::kernels::cuda::sm80 {

template <Element kElement_, int kHeadDim_, int kQueryRows_>
struct ForwardKernel {
  using T = ElementType<kElement_>;
  static constexpr int kHeadDim = kHeadDim_;
  static constexpr int kQueryRows = kQueryRows_;
  static constexpr int kWarps = kQueryRows / 16;
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kStages = 2;
  static constexpr int kScoreTiles = kKeyTileRows / 8;  // of 8 columns
  static constexpr int kOutputTiles = kHeadDim / 8;
  using Mma = typename WarpMma<T, kWarps>::Type;

  struct Keys {
    int64_t first_row;
    float bias;  // in base 2
    int16_t rows;
    int16_t buffer;
  };
  using Queue = TileQueue<Keys, kThreads, kKeyTileRows>;

  struct alignas(128) Shared {
    alignas(128) T q[kQueryRows * kHeadDim];
    alignas(128) T k[kStages][kKeyTileRows * kHeadDim];
    alignas(128) T v[kStages][kKeyTileRows * kHeadDim];
    typename Queue::Storage queue;
  };

  // Of the thread's rows, lane / 4 + {0, 8}. Each of the four threads of a row has its own part of
  // the sum.
  struct RowState {
    float maximum[2];  // of the scores in base 2
    float sum[2];
  };

  __device__ static void copy_keys(const SegmentAttentionProblem& problem, const QueryBlock& query,
                                   const Keys& keys, int tile, T* k_memory, T* v_memory) {
    const DeviceKvBuffer& buffer = problem.kv[keys.buffer];
    const int rows = rows_of_tile(keys.rows, kKeyTileRows, tile);
    const int64_t row = keys.first_row + int64_t{tile} * kKeyTileRows;
    copy_rows<kThreads, kKeyTileRows, kHeadDim>(
        row_of<const T>(buffer.k, query.batch, row, query.head), buffer.k.row_stride, rows,
        k_memory);
    copy_rows<kThreads, kKeyTileRows, kHeadDim>(
        row_of<const T>(buffer.v, query.batch, row, query.head), buffer.v.row_stride, rows,
        v_memory);
  }

  // Scores become weights relative to the row's maximum; the output follows a rising maximum.
  template <class Scores, class Output>
  __device__ static void softmax(Scores& scores, Output& output, RowState& state, int rows,
                                 float scale2, float bias2) {
    if (rows < kKeyTileRows) {
      const int first = threadIdx.x % 4 * 2;
      CUTE_UNROLL
      for (int n = 0; n < kScoreTiles; ++n) {
        CUTE_UNROLL
        for (int i = 0; i < 4; ++i) {
          if (8 * n + first + i % 2 >= rows) scores(i, 0, n) = negative_infinity();
        }
      }
    }
    CUTE_UNROLL
    for (int r = 0; r < 2; ++r) {
      float maximum = negative_infinity();
      CUTE_UNROLL
      for (int n = 0; n < kScoreTiles; ++n) {
        maximum = fmaxf(maximum, fmaxf(scores(2 * r, 0, n), scores(2 * r + 1, 0, n)));
      }
      maximum = fmaxf(maximum, __shfl_xor_sync(0xffffffffu, maximum, 1));
      maximum = fmaxf(maximum, __shfl_xor_sync(0xffffffffu, maximum, 2));
      const float former = state.maximum[r];
      const float latter = fmaxf(former, fmaf(maximum, scale2, bias2));
      // Weights of a row that has seen nothing but -inf are 0, not 0/0.
      const float reference = latter == negative_infinity() ? 0 : latter;
      const float factor = exp2_fast(former - reference);
      const float offset = bias2 - reference;
      float sum = 0;
      CUTE_UNROLL
      for (int n = 0; n < kScoreTiles; ++n) {
        CUTE_UNROLL
        for (int i = 2 * r; i < 2 * r + 2; ++i) {
          const float weight = exp2_fast(fmaf(scores(i, 0, n), scale2, offset));
          scores(i, 0, n) = weight;
          sum += weight;
        }
      }
      state.maximum[r] = latter;
      state.sum[r] = fmaf(state.sum[r], factor, sum);
      CUTE_UNROLL
      for (int n = 0; n < kOutputTiles; ++n) {
        output(2 * r, 0, n) *= factor;
        output(2 * r + 1, 0, n) *= factor;
      }
    }
  }

  // From nothing, or from a former pass: its output with the weight that its LSE gives it.
  template <class Output>
  __device__ static void start(const ForwardArguments& arguments, const QueryBlock& query,
                               int64_t statistics, Output& output, RowState& state) {
    clear(output);
    const int lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16 + lane / 4;
    CUTE_UNROLL
    for (int r = 0; r < 2; ++r) {
      state.maximum[r] = negative_infinity();
      state.sum[r] = 0;
      if (!arguments.accumulate || row + 8 * r >= query.used) continue;
      const float lse = arguments.lse[statistics + row + 8 * r];
      if (lse == negative_infinity()) continue;
      state.maximum[r] = lse * kLog2E;
      const float weight = exp2_fast(fmaf(lse, kLog2E, -state.maximum[r]));
      if (lane % 4 == 0) state.sum[r] = weight;
      const float* from =
          row_of<const float>(arguments.out, query.batch, query.first + row + 8 * r, query.head) +
          lane % 4 * 2;
      CUTE_UNROLL
      for (int n = 0; n < kOutputTiles; ++n) {
        const float2 pair = *reinterpret_cast<const float2*>(from + 8 * n);
        output(2 * r, 0, n) = pair.x * weight;
        output(2 * r + 1, 0, n) = pair.y * weight;
      }
    }
  }

  template <class Output>
  __device__ static void finish(const ForwardArguments& arguments, const QueryBlock& query,
                                int64_t statistics, const Output& output, const RowState& state) {
    const int lane = threadIdx.x % 32, first = threadIdx.x / 32 * 16 + lane / 4;
    CUTE_UNROLL
    for (int r = 0; r < 2; ++r) {
      float sum = state.sum[r];
      sum += __shfl_xor_sync(0xffffffffu, sum, 1);
      sum += __shfl_xor_sync(0xffffffffu, sum, 2);
      const int row = first + 8 * r;
      if (row >= query.used) continue;
      const float inverse = sum == 0 ? 0 : 1 / sum;
      if (arguments.out_is_float) {
        float* to = row_of<float>(arguments.out, query.batch, query.first + row, query.head);
        CUTE_UNROLL
        for (int n = 0; n < kOutputTiles; ++n) {
          store_pair(to + 8 * n + lane % 4 * 2, output(2 * r, 0, n) * inverse,
                     output(2 * r + 1, 0, n) * inverse);
        }
      } else {
        T* to = row_of<T>(arguments.out, query.batch, query.first + row, query.head);
        CUTE_UNROLL
        for (int n = 0; n < kOutputTiles; ++n) {
          store_pair(to + 8 * n + lane % 4 * 2, output(2 * r, 0, n) * inverse,
                     output(2 * r + 1, 0, n) * inverse);
        }
      }
      if (lane % 4 == 0) {
        arguments.lse[statistics + row] =
            sum == 0 ? negative_infinity() : (state.maximum[r] + log2f(sum)) * kLn2;
      }
    }
  }

  __device__ static void store_pair(float* to, float x, float y) {
    *reinterpret_cast<float2*>(to) = make_float2(x, y);
  }
  __device__ static void store_pair(T* to, float x, float y) {
    const cutlass::NumericArrayConverter<T, float, 2> convert;
    *reinterpret_cast<cutlass::Array<T, 2>*>(to) = convert({x, y});
  }

  // Rows [first, last) of the query block attend to nothing.
  __device__ static void clear_rows(const ForwardArguments& arguments, const QueryBlock& query,
                                    int64_t statistics, int first, int last) {
    constexpr int kPairs = kHeadDim / 2;
    for (int i = threadIdx.x; i < (last - first) * kPairs; i += kThreads) {
      const int64_t row = query.first + first + i / kPairs;
      const int column = i % kPairs * 2;
      if (arguments.out_is_float) {
        store_pair(row_of<float>(arguments.out, query.batch, row, query.head) + column, 0, 0);
      } else {
        store_pair(row_of<T>(arguments.out, query.batch, row, query.head) + column, 0, 0);
      }
    }
    for (int row = first + threadIdx.x; row < last; row += kThreads) {
      arguments.lse[statistics + row] = negative_infinity();
    }
  }

  __device__ static void run(const ForwardArguments& arguments, Shared& shared) {
    const SegmentAttentionProblem& problem = arguments.problem;
    const int blocks = problem.table.query_blocks;
    const int batch_head = problem.first_head + blockIdx.x / blocks;
    const QueryBlock query = query_block(problem, batch_head, blockIdx.x % blocks);
    const int64_t statistics = statistic_index(problem, batch_head, query.first);
    if (!arguments.accumulate) {
      clear_rows(arguments, query, statistics, query.used, query.rows);
    }
    if (query.used == 0) return;

    const float scale2 = problem.scale * kLog2E;
    const auto make = [&](int64_t place, Keys& keys) {
      const DeviceKvBlock block = kv_block(problem, batch_head, problem.table.kv_block[place]);
      keys = {block.first_row, block.bias * kLog2E, static_cast<int16_t>(block.rows),
              static_cast<int16_t>(block.buffer)};
      return block.rows > 0;
    };
    Queue queue(shared.queue, problem.table.row_offsets[query.row],
                problem.table.row_offsets[query.row + 1]);
    copy_rows<kThreads, kQueryRows, kHeadDim>(
        row_of<const T>(problem.q, query.batch, query.first, query.head), problem.q.row_stride,
        query.used, shared.q);
    Keys next;
    int next_tile;
    bool more = queue.next(next, next_tile, make);
    if (!more && arguments.accumulate) {
      cp_async_wait<0>();
      return;
    }
    if (more) copy_keys(problem, query, next, next_tile, shared.k[0], shared.v[0]);
    cp_async_fence();

    const Mma mma;
    auto output = partition_fragment_C(mma, Shape<Int<kQueryRows>, Int<kHeadDim>>{});
    RowState state;
    start(arguments, query, statistics, output, state);
    cp_async_wait<0>();
    __syncthreads();
    const auto q = load_left<LoadRows<T>>(tile_at<T, kQueryRows, kHeadDim>(shared.q), mma);

    for (int stage = 0; more; stage ^= 1) {
      const float bias2 = next.bias;
      const int rows = rows_of_tile(next.rows, kKeyTileRows, next_tile);
      // Every warp is past the tile before this one, whose memory the next one takes.
      cp_async_wait<0>();
      __syncthreads();
      more = queue.next(next, next_tile, make);
      if (more) {
        copy_keys(problem, query, next, next_tile, shared.k[stage ^ 1], shared.v[stage ^ 1]);
      }
      cp_async_fence();
      auto scores = partition_fragment_C(mma, Shape<Int<kQueryRows>, Int<kKeyTileRows>>{});
      clear(scores);
      multiply_registers<LoadRows<T>>(scores, q,
                                      tile_at<T, kKeyTileRows, kHeadDim>(shared.k[stage]), mma);
      softmax(scores, output, state, rows, scale2, bias2);
      multiply_registers<LoadTransposed<T>>(
          output, round_to_left<T>(scores),
          transposed_tile_at<T, kKeyTileRows, kHeadDim>(shared.v[stage]), mma);
    }
    finish(arguments, query, statistics, output, state);
  }
};

template <class Kernel>
__global__ void __launch_bounds__(Kernel::kThreads)
    segment_attention_forward_sm80(const __grid_constant__ ForwardArguments arguments) {
  extern __shared__ __align__(128) unsigned char memory[];
  Kernel::run(arguments, *reinterpret_cast<typename Kernel::Shared*>(memory));
}

template <class Kernel>
void launch_forward(const ForwardArguments& arguments, cudaStream_t stream) {
  const SegmentAttentionProblem& problem = arguments.problem;
  constexpr int kBytes = sizeof(typename Kernel::Shared);
  const auto kernel = segment_attention_forward_sm80<Kernel>;
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes),
             "cudaFuncSetAttribute for the attention forward");
  const int blocks = (problem.last_head - problem.first_head) * problem.table.query_blocks;
  kernel<<<blocks, Kernel::kThreads, kBytes, stream>>>(arguments);
  check_cuda(cudaGetLastError(), "launching the attention forward");
}

}  // namespace sprocket::kernels::cuda::sm80

namespace sprocket::kernels::cuda {

template <Element kElement, int kHeadDim>
void launch_forward_sm80(const ForwardArguments& arguments, CUstream_st* stream) {
  switch (query_tile_rows(arguments.problem.max_query_rows)) {
    case 32:
      return sm80::launch_forward<sm80::ForwardKernel<kElement, kHeadDim, 32>>(arguments, stream);
    case 64:
      return sm80::launch_forward<sm80::ForwardKernel<kElement, kHeadDim, 64>>(arguments, stream);
    case 128:
      return sm80::launch_forward<sm80::ForwardKernel<kElement, kHeadDim, 128>>(arguments, stream);
  }
}

}  // namespace sprocket::kernels::cuda
