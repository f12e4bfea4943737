// First pass of the backward of family sm_90: a thread block keeps two tiles of keys, those of one
// KV block or of two neighbouring ones, a warpgroup each. One warp streams the union of the lists
// of query blocks that list them. Products are those of family sm_80, transposed likewise: keys and
// values are left operands in shared memory, weights left operands in registers. The slots that it
// leaves to the second pass have the form of family sm_80's.
#pragma once

#include "kernels/cuda/segment_attention_columns.cuh"
#include "kernels/cuda/segment_attention_slots.cuh"
#include "kernels/cuda/segment_attention_sm90_launch.cuh"
#include "kernels/cuda/segment_attention_sm90_products.cuh"

namespace sprocket::kernels::cuda::sm90 {

struct KeyGradientLaunch {
  BackwardArguments arguments;
  CUtensorMap q, dout;
};

// A query block that takes part.
struct Queries {
  int id;
  int first_row;
  int slot;
  int rows;
};

// What a stage of queries holds.
struct QueryNote {
  int rows;
  int tile;            // of the query block
  unsigned takers;     // a bit for each list that has it
  int slots[kGroups];  // by list
};

template <Element kElement_, int kHeadDim_, int kKeyTiles_>
struct KeyGradientKernel {
  using T = ElementType<kElement_>;
  using Launch = KeyGradientLaunch;
  static constexpr int kHeadDim = kHeadDim_;
  static constexpr int kKeyTiles = kKeyTiles_;  // of a KV block
  static constexpr int kLists = kGroups / kKeyTiles;
  static constexpr int kThreads = kGroupThreads * (1 + kGroups);
  static constexpr int kStages = 3;
  // Queries of a step: with more, the sums of a warpgroup exceed its registers at D = 128.
  static constexpr int kStep = 32;
  static constexpr int kProducerRegisters = 88, kConsumerRegisters = 208;

  using Tiles = Stages<T, kHeadDim, kStages, QueryNote>;
  using Lists = BlockUnion<Queries, kLists>;
  using Operands = GradientLayouts<T, kHeadDim, kStep>;

  struct Shared {
    Tiles tiles;  // of q and dout
    alignas(1024) T k[kGroups * Tiles::kTileElements];
    alignas(1024) T v[kGroups * Tiles::kTileElements];
    alignas(16) float lse2[kStages][kTileRows];
    alignas(16) float delta[kStages][kTileRows];
    typename Lists::Storage entries;
  };

  // Thread blocks of a head.
  SPROCKET_HOST_DEVICE static int width(const SegmentAttentionProblem& problem) {
    return tiles_of(problem.table.kv_blocks, kLists);
  }
  static int blocks(const BackwardArguments& arguments) {
    const SegmentAttentionProblem& problem = arguments.problem;
    return (problem.last_head - problem.first_head) * width(problem);
  }
  __device__ static int batch_head(const SegmentAttentionProblem& problem) {
    return problem.first_head + blockIdx.x / width(problem);
  }
  // The KV block of a list, by number; there may be none.
  __device__ static int block_of(const SegmentAttentionProblem& problem, int list) {
    return blockIdx.x % width(problem) * kLists + list;
  }

  __device__ static void produce(const Launch& launch, Shared& shared) {
    const BackwardArguments& arguments = launch.arguments;
    const SegmentAttentionProblem& problem = arguments.problem;
    const int head = batch_head(problem), lane = threadIdx.x % kLanes;
    const int32_t base = first_pair(arguments);
    const auto make = [&](uint32_t place, Queries& queries) {
      const int id = arguments.inverse.query_block[place];
      const QueryBlock query = query_block(problem, head, id);
      queries = {id, static_cast<int>(query.first), arguments.inverse.pair[place] - base,
                 query.used};
      // Else a row lists more than max_row_pairs blocks.
      if (queries.slot >= arguments.slot_count) __trap();
      return query.used > 0;
    };
    Lists lists(shared.entries);
    const int block = block_of(problem, lane);
    if (lane < kLists && block < problem.table.kv_blocks &&
        kv_block(problem, head, block).rows > 0) {
      const ColumnList list = column_list(arguments, head, block);
      lists.begin(list.first, list.last);
    }
    Producer<T, kHeadDim, Tiles> producer{shared.tiles, head / problem.table.heads,
                                          head % problem.table.heads};
    Queries queries;
    while (const unsigned takers = lists.next(make, queries)) {
      for (int tile = 0; tile < tiles_of(queries.rows, kTileRows); ++tile) {
        const int rows = rows_of_tile(queries.rows, kTileRows, tile);
        const int first_row = queries.first_row + tile * kTileRows;
        const int64_t statistics = statistic_index(problem, head, first_row);
        producer.load(
            {launch.q, problem.q}, {launch.dout, arguments.dout}, first_row, rows, [&](int stage) {
              CUTE_UNROLL
              for (int row = lane; row < kTileRows; row += kLanes) {
                const bool valid = row < rows;
                shared.lse2[stage][row] =
                    weight_base(valid ? arguments.lse[statistics + row] : negative_infinity());
                shared.delta[stage][row] = valid ? arguments.delta[statistics + row] : 0;
              }
              QueryNote& note = shared.tiles.notes[stage];
              if (lane < kLists) note.slots[lane] = queries.slot;
              if (lane != 0) return;
              note.rows = rows;
              note.tile = tile;
              note.takers = takers;
            });
      }
    }
    producer.end();
  }

  __device__ static void consume(const BackwardArguments& arguments, Shared& shared) {
    const SegmentAttentionProblem& problem = arguments.problem;
    Tiles& tiles = shared.tiles;
    const int thread = threadIdx.x % kGroupThreads, group = threadIdx.x / kGroupThreads - 1;
    const int list = group / kKeyTiles, block = block_of(problem, list);
    KeyColumn column{};
    if (block < problem.table.kv_blocks) {
      column = locate_column(problem, batch_head(problem), block, group % kKeyTiles);
    }
    const unsigned mine = column.rows > 0 ? 1u << list : 0;
    if (mine != 0) keep(problem.kv[column.buffer], column, shared, group, thread);
    finish_copies();
    cutlass::arch::NamedBarrier::sync(kGroupThreads, group);

    typename Operands::ScoresMma scores_mma;
    typename Operands::GradientMma gradient_mma;
    const auto scores_thread = scores_mma.get_thread_slice(thread);
    const auto gradient_thread = gradient_mma.get_thread_slice(thread);
    using Rows = typename Operands::template Rows<kStages>;
    using Columns = typename Operands::template Columns<kStages>;
    using Kept = typename Operands::template Rows<kGroups>;
    const auto all_k =
        scores_thread.partition_fragment_A(make_tensor(make_smem_ptr(shared.k), Kept{}));
    const auto all_v =
        scores_thread.partition_fragment_A(make_tensor(make_smem_ptr(shared.v), Kept{}));
    auto k = all_k(_, _, _, group);
    auto v = all_v(_, _, _, group);
    // [value][step][16 columns][stage] and [value][1][16 queries][stage].
    const auto q =
        scores_thread.partition_fragment_B(make_tensor(make_smem_ptr(tiles.first), Rows{}));
    const auto dout =
        scores_thread.partition_fragment_B(make_tensor(make_smem_ptr(tiles.second), Rows{}));
    const auto q_columns =
        gradient_thread.partition_fragment_B(make_tensor(make_smem_ptr(tiles.first), Columns{}));
    const auto dout_columns =
        gradient_thread.partition_fragment_B(make_tensor(make_smem_ptr(tiles.second), Columns{}));
    auto dk = partition_fragment_C(gradient_mma, Shape<Int<kGroupRows>, Int<kHeadDim>>{});
    auto dv = partition_fragment_C(gradient_mma, Shape<Int<kGroupRows>, Int<kHeadDim>>{});
    auto scores = partition_fragment_C(scores_mma, Shape<Int<kGroupRows>, Int<kStep>>{});
    auto dweights = partition_fragment_C(scores_mma, Shape<Int<kGroupRows>, Int<kStep>>{});
    constexpr auto kLeftShape = Shape<Int<kGroupRows>, Int<kStep>>{};
    auto weights = make_tensor<T>(partition_shape_A(gradient_mma, kLeftShape));
    auto dscores = make_tensor<T>(partition_shape_A(gradient_mma, kLeftShape));
    clear(dk);
    clear(dv);
    const float scale2 = problem.scale * kLog2E;
    const PairSlot slot = pair_slot(problem.max_query_rows, problem.max_kv_rows);
    const int first_row = thread / 32 * kWarpRows + thread % 32 / 4;

    bool seen = false;
    for (typename Tiles::Place place;; ++place) {
      const int stage = place.index();
      wait_for(tiles.first_full[stage], place.phase());
      const QueryNote& note = tiles.notes[stage];
      if (note.rows == 0) break;
      if ((note.takers & mine) != 0) {
        seen = true;
        wait_for(tiles.second_full[stage], place.phase());
        T* const slots = static_cast<T*>(arguments.slots) + note.slots[list] * slot.elements() +
                         column.tile * slot.tile_elements() + note.tile * kTileRows;
        for (int step = 0; step * kStep < note.rows; ++step) {
          // Nothing may touch the other product's registers once this one is under way.
          warpgroup_fence_operand(dweights);
          start_product<false>(scores_mma, k, q(_, step, _, stage), scores);
          start_product<false>(scores_mma, v, dout(_, step, _, stage), dweights);
          finish_product<0>(scores);
          warpgroup_fence_operand(dweights);
          differentiate(scores, dweights, shared.lse2[stage] + step * kStep,
                        shared.delta[stage] + step * kStep, first_row, column.rows, scale2,
                        column.bias2);
          round_to(scores, weights);
          round_to(dweights, dscores);
          warpgroup_fence_operand(dscores);
          warpgroup_fence_operand(dk);
          add_step(gradient_mma, weights, dout_columns(_, 0, _, stage), step, dv);
          add_step(gradient_mma, dscores, q_columns(_, 0, _, stage), step, dk);
          store_slot(dscores, slots + step * kStep, first_row, slot.query_rows);
          finish_product<0>(dv);
          warpgroup_fence_operand(dk);
        }
      }
      tiles.release(stage);
    }
    if (!seen) return;
    add_to_rows(arguments.dkv[column.buffer].dk, column, first_row, dk, problem.scale);
    add_to_rows(arguments.dkv[column.buffer].dv, column, first_row, dv, 1);
  }

  // Keys and values of the warpgroup, begun to copy.
  __device__ static void keep(const DeviceKvBuffer& buffer, const KeyColumn& column, Shared& shared,
                              int group, int thread) {
    const int at = group * Tiles::kTileElements;
    copy_rows<kHeadDim, kGroupThreads>(
        row_of<const T>(buffer.k, column.batch, column.first_row, column.head), buffer.k.row_stride,
        column.rows, shared.k + at, thread);
    copy_rows<kHeadDim, kGroupThreads>(
        row_of<const T>(buffer.v, column.batch, column.first_row, column.head), buffer.v.row_stride,
        column.rows, shared.v + at, thread);
  }

  // Adds the product with the step's queries, [value][16 queries] of the stage.
  template <class Mma, class Left, class Right, class Sums>
  __device__ static void add_step(Mma& mma, Left& left, const Right& right, int step, Sums& sums) {
    constexpr int kCount = kStep / 16;
    warpgroup_fence_operand(left);
    warpgroup_fence_operand(sums);
    warpgroup_arrive();
    mma.accumulate_ = GMMA::ScaleOut::One;
    CUTE_UNROLL
    for (int i = 0; i < kCount; ++i) {
      cute::gemm(mma, left(_, 0, i), right(_, step * kCount + i), sums(_, 0, 0));
    }
    warpgroup_commit_batch();
  }
};

}  // namespace sprocket::kernels::cuda::sm90

namespace sprocket::kernels::cuda {

template <Element kElement, int kHeadDim>
void launch_key_gradients_sm90(const BackwardArguments& arguments, CUstream_st* stream) {
  const SegmentAttentionProblem& problem = arguments.problem;
  const sm90::KeyGradientLaunch launch{arguments, make_tensor_map(problem, problem.q, "q"),
                                       make_tensor_map(problem, arguments.dout, "dout")};
  if (pair_slot(problem.max_query_rows, problem.max_kv_rows).key_tiles == 1) {
    sm90::launch<sm90::KeyGradientKernel<kElement, kHeadDim, 1>>(launch, stream);
  } else {
    sm90::launch<sm90::KeyGradientKernel<kElement, kHeadDim, 2>>(launch, stream);
  }
}

}  // namespace sprocket::kernels::cuda
