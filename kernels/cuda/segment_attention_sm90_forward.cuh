// Forward of family sm_90: a thread block serves neighbouring query blocks of a head
// (segment_attention_sm90_tiles.h). One warp streams the union of their lists through stages of
// shared memory; two warpgroups compute, each for itself on 64 rows: while one is at its softmax,
// the other multiplies. Queries, weights and output stay in registers. The scores of a warpgroup's
// next tile and the output of the one before are multiplied while it is at its softmax, too.
#pragma once

#include "kernels/cuda/segment_attention_rows.cuh"
#include "kernels/cuda/segment_attention_sm90_launch.cuh"
#include "kernels/cuda/segment_attention_sm90_products.cuh"

namespace sprocket::kernels::cuda::sm90 {

struct ForwardLaunch {
  ForwardArguments arguments;
  BufferTensorMaps k, v;
};

// A KV block that has rows here.
struct Keys {
  int64_t first_row;
  float bias2;  // in base 2
  int id;
  int16_t rows;
  int16_t buffer;
};

// What a stage of keys and values holds.
struct KeyNote {
  int rows;
  unsigned takers;  // a bit for each query block of the thread block that lists the tile
  float bias2;      // in base 2
};

template <Element kElement_, int kHeadDim_, int kQueryRows_>
struct ForwardKernel {
  using T = ElementType<kElement_>;
  using Launch = ForwardLaunch;
  static constexpr int kHeadDim = kHeadDim_;
  static constexpr int kQueryRows = kQueryRows_;
  static constexpr int kBlocks = blocks_together(kQueryRows);
  static constexpr int kThreads = kGroupThreads * (1 + kGroups);
  static constexpr int kStages = 4;
  static constexpr int kProducerRegisters = 104, kConsumerRegisters = 200;

  using Tiles = Stages<T, kHeadDim, kStages, KeyNote>;
  using Lists = BlockUnion<Keys, kBlocks>;
  using Operands = Layouts<T, kHeadDim>;

  struct Shared {
    Tiles tiles;
    typename Lists::Storage entries;
  };

  // Thread blocks of a head.
  SPROCKET_HOST_DEVICE static int width(const SegmentAttentionProblem& problem) {
    return tiles_of(problem.table.query_blocks, kBlocks);
  }
  static int blocks(const ForwardArguments& arguments) {
    const SegmentAttentionProblem& problem = arguments.problem;
    return (problem.last_head - problem.first_head) * width(problem);
  }
  // The thread block's query blocks, by number; without rows past the last.
  __device__ static QueryBlock locate(const SegmentAttentionProblem& problem, int number) {
    const int block = blockIdx.x % width(problem) * kBlocks + number;
    if (block >= problem.table.query_blocks) return {};
    return query_block(problem, batch_head(problem), block);
  }
  __device__ static int batch_head(const SegmentAttentionProblem& problem) {
    return problem.first_head + blockIdx.x / width(problem);
  }

  __device__ static void produce(const Launch& launch, Shared& shared) {
    const SegmentAttentionProblem& problem = launch.arguments.problem;
    const int head = batch_head(problem);
    const auto make = [&](uint32_t place, Keys& keys) {
      const int id = problem.table.kv_block[place];
      const DeviceKvBlock block = kv_block(problem, head, id);
      keys = {block.first_row, block.bias * kLog2E, id, static_cast<int16_t>(block.rows),
              static_cast<int16_t>(block.buffer)};
      return block.rows > 0;
    };
    const int lane = threadIdx.x % kLanes;
    Lists lists(shared.entries);
    if (lane < kBlocks) {
      const QueryBlock query = locate(problem, lane);
      if (query.used > 0) {
        lists.begin(problem.table.row_offsets[query.row], problem.table.row_offsets[query.row + 1]);
      }
    }
    Producer<T, kHeadDim, Tiles> producer{shared.tiles, head / problem.table.heads,
                                          head % problem.table.heads};
    Keys keys;
    while (const unsigned takers = lists.next(make, keys)) {
      const DeviceKvBuffer& buffer = problem.kv[keys.buffer];
      for (int tile = 0; tile < tiles_of(keys.rows, kTileRows); ++tile) {
        const int rows = rows_of_tile(keys.rows, kTileRows, tile);
        producer.load({launch.k.of[keys.buffer], buffer.k}, {launch.v.of[keys.buffer], buffer.v},
                      keys.first_row + int64_t{tile} * kTileRows, rows, [&](int stage) {
                        if (lane != 0) return;
                        shared.tiles.notes[stage] = {rows, takers, keys.bias2};
                      });
      }
    }
    producer.end();
  }

  // The thread's part of the rows of q, as the left operand of a product: two columns to a
  // register, rows 8 apart, columns 8 apart, then steps of 16 columns. Zeros for rows that take no
  // part.
  template <class Left>
  __device__ static void load_queries(const SegmentAttentionProblem& problem,
                                      const QueryBlock& query, int row, Left& q) {
    auto words = recast<uint32_t>(q);
    const T* first = row_of<const T>(problem.q, query.batch, query.first + row, query.head) +
                     threadIdx.x % 4 * 2;
    CUTE_UNROLL
    for (int i = 0; i < size(words); ++i) {
      const int below = i % 2 * 8, column = i / 4 * 16 + i / 2 % 2 * 8;
      const T* at = first + below * problem.q.row_stride + column;
      words(i) = row + below < query.used ? *reinterpret_cast<const uint32_t*>(at) : 0;
    }
  }

  __device__ static void consume(const ForwardArguments& arguments, Shared& shared) {
    const SegmentAttentionProblem& problem = arguments.problem;
    Tiles& tiles = shared.tiles;
    const int thread = threadIdx.x - kGroupThreads, warp = thread / 32, group = warp / 4;
    const int number = block_of_warp(warp, kQueryRows);
    const QueryBlock query = locate(problem, number);
    const int64_t statistics = statistic_index(problem, batch_head(problem), query.first);
    const int row = first_row_of_warp(warp, kQueryRows) + thread % 32 / 4;
    if (!arguments.accumulate) {
      constexpr int kBlockThreads = 2 * kQueryRows;
      clear_rows<T, kHeadDim>(arguments, query, statistics, query.used, query.rows,
                              thread % kBlockThreads, kBlockThreads);
    }
    // A warpgroup whose rows of a long block take no part has nothing to do.
    const bool idle = kQueryRows > kGroupRows && group * kGroupRows >= query.used;
    const unsigned mine = idle ? 0 : blocks_of_group(group, kQueryRows);

    typename Operands::ScoresMma scores_mma;
    typename Operands::OutputMma output_mma;
    const auto keys =
        scores_mma.get_thread_slice(thread % kGroupThreads)
            .partition_fragment_B(make_tensor(make_smem_ptr(tiles.first),
                                              typename Operands::template Keys<kStages>{}));
    const auto values =
        output_mma.get_thread_slice(thread % kGroupThreads)
            .partition_fragment_B(make_tensor(make_smem_ptr(tiles.second),
                                              typename Operands::template Values<kStages>{}));
    auto q = make_tensor<T>(partition_shape_A(scores_mma, Shape<Int<kGroupRows>, Int<kHeadDim>>{}));
    auto weights =
        make_tensor<T>(partition_shape_A(output_mma, Shape<Int<kGroupRows>, Int<kTileRows>>{}));
    auto scores = partition_fragment_C(scores_mma, Shape<Int<kGroupRows>, Int<kTileRows>>{});
    auto output = partition_fragment_C(output_mma, Shape<Int<kGroupRows>, Int<kHeadDim>>{});
    load_queries(problem, query, row, q);
    RowState state;
    start_rows(arguments, query, statistics, row, output, state);
    const float scale2 = problem.scale * kLog2E;

    typename Tiles::Place place;
    KeyNote note;
    bool seen = false;  // a tile of the warp's query block
    float factors[2];
    const auto read_note = [&] {
      wait_for(tiles.first_full[place.index()], place.phase());
      note = tiles.notes[place.index()];
    };
    const auto pass_others = [&] {
      while (note.rows > 0 && (note.takers & mine) == 0) {
        tiles.release(place.index());
        ++place;
        read_note();
      }
    };
    // The rows of a block that does not list the tile see none of its keys.
    const auto weigh = [&] {
      const bool takes = note.takers >> number & 1;
      seen = seen || takes;
      softmax(scores, state, factors, takes ? note.rows : 0, scale2, note.bias2);
    };

    read_note();
    pass_others();
    while (note.rows > 0) {
      start_product<false>(scores_mma, q, keys(_, 0, _, place.index()), scores);
      finish_product<0>(scores);
      weigh();
      rescale(output, factors);
      round_to(scores, weights);
      // `weights` belong to the tile at `former`. As long as the tile after it is for this
      // warpgroup, too, its scores are multiplied ahead.
      typename Tiles::Place former;
      for (;;) {
        former = place;
        ++place;
        read_note();
        if (note.rows == 0 || (note.takers & mine) == 0) break;
        // Nothing may touch the other product's registers once this one is under way.
        warpgroup_fence_operand(weights);
        warpgroup_fence_operand(output);
        start_product<false>(scores_mma, q, keys(_, 0, _, place.index()), scores);
        wait_for(tiles.second_full[former.index()], former.phase());
        start_product<true>(output_mma, weights, values(_, 0, _, former.index()), output);
        finish_product<1>(scores);
        weigh();
        finish_product<0>(output);
        tiles.release(former.index());
        rescale(output, factors);
        round_to(scores, weights);
      }
      wait_for(tiles.second_full[former.index()], former.phase());
      start_product<true>(output_mma, weights, values(_, 0, _, former.index()), output);
      finish_product<0>(output);
      tiles.release(former.index());
      pass_others();
    }
    if (arguments.accumulate && !seen) return;  // a former pass stays as it is
    finish_rows<T>(arguments, query, statistics, row, output, state);
  }
};

}  // namespace sprocket::kernels::cuda::sm90

namespace sprocket::kernels::cuda {

template <Element kElement, int kHeadDim>
void launch_forward_sm90(const ForwardArguments& arguments, CUstream_st* stream) {
  const sm90::ForwardLaunch launch{arguments, make_key_maps(arguments.problem),
                                   make_value_maps(arguments.problem)};
  switch (query_tile_rows(arguments.problem.max_query_rows)) {
    case 32:
      return sm90::launch<sm90::ForwardKernel<kElement, kHeadDim, 32>>(launch, stream);
    case 64:
      return sm90::launch<sm90::ForwardKernel<kElement, kHeadDim, 64>>(launch, stream);
    case 128:
      return sm90::launch<sm90::ForwardKernel<kElement, kHeadDim, 128>>(launch, stream);
  }
}

}  // namespace sprocket::kernels::cuda
