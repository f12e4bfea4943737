// Forward of family sm_80: a thread block keeps one query block, and the KV blocks of its list go
// by in tiles of 64 rows, two in shared memory: while one is computed on, the next arrives.
// Queries, scores and output stay in registers.
#pragma once

#include "base/cuda_stream.h"
#include "kernels/cuda/segment_attention_rows.cuh"
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

  __device__ static void run(const ForwardArguments& arguments, Shared& shared) {
    const SegmentAttentionProblem& problem = arguments.problem;
    const int blocks = problem.table.query_blocks;
    const int batch_head = problem.first_head + blockIdx.x / blocks;
    const QueryBlock query = query_block(problem, batch_head, blockIdx.x % blocks);
    const int64_t statistics = statistic_index(problem, batch_head, query.first);
    if (!arguments.accumulate) {
      clear_rows<T, kHeadDim>(arguments, query, statistics, query.used, query.rows, threadIdx.x,
                              kThreads);
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
    const int row = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4;
    start_rows(arguments, query, statistics, row, output, state);
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
      float factors[2];
      softmax(scores, state, factors, rows, scale2, bias2);
      rescale(output, factors);
      multiply_registers<LoadTransposed<T>>(
          output, round_to_left<T>(scores),
          transposed_tile_at<T, kKeyTileRows, kHeadDim>(shared.v[stage]), mma);
    }
    finish_rows<T>(arguments, query, statistics, row, output, state);
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
