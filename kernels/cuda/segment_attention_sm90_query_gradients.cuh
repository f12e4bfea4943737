// Second pass of the backward of family sm_90: a thread block sums dQ = scale dS K for neighbouring
// query blocks, over the union of their lists, from the gradients of the scores that the first pass
// left in the workspace. One warp streams each tile of keys once and, for each warpgroup that takes
// it, the gradients of its 64 queries. They lie key by key: a left operand of the product as they
// are. A product is short and its operands are long, so what counts is how many bytes come from the
// L2 cache: four warpgroups share the keys, where the other passes have two.
#pragma once

#include "kernels/cuda/segment_attention_slots.cuh"
#include "kernels/cuda/segment_attention_sm90_launch.cuh"
#include "kernels/cuda/segment_attention_sm90_products.cuh"

namespace sprocket::kernels::cuda::sm90 {

struct QueryGradientLaunch {
  BackwardArguments arguments;
  BufferTensorMaps k;
  CUtensorMap slots;
};

// A KV block that has rows here, on one list.
struct SlotKeys {
  int64_t first_row;
  int id;
  int slot;
  int16_t rows;
  int16_t buffer;
};

struct SlotKeyNote {
  int rows;
  unsigned takers;  // a bit for each query block of the thread block that lists the tile
};

template <Element kElement_, int kHeadDim_, int kQueryRows_>
struct QueryGradientKernel {
  using T = ElementType<kElement_>;
  using Launch = QueryGradientLaunch;
  static constexpr int kHeadDim = kHeadDim_;
  static constexpr int kQueryRows = kQueryRows_;
  static constexpr int kComputing = kQueryGradientGroups;
  static constexpr int kBlocks = blocks_together(kQueryRows, kComputing);
  static constexpr int kThreads = kGroupThreads * (1 + kComputing);
  static constexpr int kStages = kHeadDim == 128 ? 4 : 5;
  static constexpr int kProducerRegisters = 64, kConsumerRegisters = 104;
  static constexpr int kPanelElements = kTileRows * slot_panel_columns(kQueryRows);
  static constexpr int kPanels = kGroupRows / slot_panel_columns(kQueryRows);  // of a warpgroup
  static constexpr int kGroupElements = kPanels * kPanelElements;
  static constexpr int kPanelBytes = kPanelElements * static_cast<int>(sizeof(T));

  using Tiles = Stages<T, kHeadDim, kStages, SlotKeyNote, kComputing * kGroupElements>;
  using Lists = BlockUnion<SlotKeys, kBlocks>;
  using Operands = QueryGradientLayouts<T, kHeadDim, kQueryRows>;

  struct Shared {
    Tiles tiles;  // of k, and of the gradients of the scores by warpgroup
    typename Lists::Storage entries;
  };

  // Thread blocks of a head.
  SPROCKET_HOST_DEVICE static int width(const BackwardArguments& arguments) {
    return tiles_of(arguments.last_query_block - arguments.first_query_block, kBlocks);
  }
  static int blocks(const BackwardArguments& arguments) {
    const SegmentAttentionProblem& problem = arguments.problem;
    return (problem.last_head - problem.first_head) * width(arguments);
  }
  __device__ static int batch_head(const BackwardArguments& arguments) {
    return arguments.problem.first_head + blockIdx.x / width(arguments);
  }
  // The thread block's query blocks, by number; without rows past the last of the group.
  __device__ static QueryBlock locate(const BackwardArguments& arguments, int number) {
    const int block =
        arguments.first_query_block + blockIdx.x % width(arguments) * kBlocks + number;
    if (block >= arguments.last_query_block) return {};
    return query_block(arguments.problem, batch_head(arguments), block);
  }
  // Of a long block, of which `used` rows take part, a warpgroup may have no rows.
  __device__ static bool is_idle(int group, int used) {
    return kQueryRows > kGroupRows && first_row_of_warp(4 * group, kQueryRows) >= used;
  }

  __device__ static void produce(const Launch& launch, Shared& shared) {
    const BackwardArguments& arguments = launch.arguments;
    const SegmentAttentionProblem& problem = arguments.problem;
    const int head = batch_head(arguments);
    const int32_t base = first_pair(arguments);
    const auto make = [&](uint32_t place, SlotKeys& keys) {
      const int id = problem.table.kv_block[place];
      const DeviceKvBlock block = kv_block(problem, head, id);
      keys = {block.first_row, id, static_cast<int>(place) - base, static_cast<int16_t>(block.rows),
              static_cast<int16_t>(block.buffer)};
      return block.rows > 0;
    };
    const int lane = threadIdx.x % kLanes;
    Lists lists(shared.entries);
    if (lane < kBlocks) {
      const QueryBlock query = locate(arguments, lane);
      if (query.used > 0) {
        lists.begin(problem.table.row_offsets[query.row], problem.table.row_offsets[query.row + 1]);
      }
    }
    // A panel for each lane.
    constexpr int kLoads = kComputing * kPanels;
    const int group = lane % kLoads / kPanels;
    const int warp = 4 * group + lane % kPanels * slot_panel_columns(kQueryRows) / kWarpRows;
    const int block = block_of_warp(warp, kQueryRows);
    const bool loads = lane < kLoads && !is_idle(group, locate(arguments, block).used);
    T* const panels = shared.tiles.second + lane * kPanelElements;

    const PairSlot form = pair_slot(problem.max_query_rows, problem.max_kv_rows);
    const int zeros = static_cast<int>(slot_rows(form.key_tiles, arguments.slot_count));
    Producer<T, kHeadDim, Tiles> producer{shared.tiles, head / problem.table.heads,
                                          head % problem.table.heads};
    SlotKeys keys;
    while (const unsigned takers = lists.next(make, keys)) {
      const int slot_row = __shfl_sync(kAllLanes, keys.slot, block) * form.key_tiles * kTileRows;
      const bool takes = takers >> block & 1;
      const unsigned loading =
          __ballot_sync(kAllLanes, loads && (takers & blocks_of_group(group, kQueryRows)) != 0);
      for (int tile = 0; tile < tiles_of(keys.rows, kTileRows); ++tile) {
        const int rows = rows_of_tile(keys.rows, kTileRows, tile);
        const int row = takes ? slot_row + tile * kTileRows : zeros;
        producer.load_beside(
            {launch.k.of[keys.buffer], problem.kv[keys.buffer].k},
            keys.first_row + int64_t{tile} * kTileRows, rows, __popc(loading) * kPanelBytes,
            [&](int stage) {
              if ((loading >> lane & 1) == 0) return;
              load_by_map(launch.slots, TMA::CacheHintSm90::EVICT_FIRST, row,
                          first_row_of_warp(warp, kQueryRows) / kGroupRows, 0, 0,
                          panels + stage * kComputing * kGroupElements,
                          shared.tiles.second_full[stage]);
            },
            [&](int stage) {
              shared.tiles.notes[stage] = {rows, takers};
            });
      }
    }
    producer.end();
  }

  __device__ static void consume(const BackwardArguments& arguments, Shared& shared) {
    Tiles& tiles = shared.tiles;
    const int thread = threadIdx.x - kGroupThreads, warp = thread / 32, group = warp / 4;
    const int number = block_of_warp(warp, kQueryRows);
    const QueryBlock query = locate(arguments, number);
    const unsigned mine = is_idle(group, query.used) ? 0 : blocks_of_group(group, kQueryRows);

    typename Operands::Mma mma;
    const auto mma_thread = mma.get_thread_slice(thread % kGroupThreads);
    const auto dscores = mma_thread.partition_fragment_A(
        make_tensor(make_smem_ptr(tiles.second),
                    typename Operands::template ScoreGradients<kStages * kComputing>{}));
    const auto keys = mma_thread.partition_fragment_B(
        make_tensor(make_smem_ptr(tiles.first), typename Operands::template Keys<kStages>{}));
    auto dq = partition_fragment_C(mma, Shape<Int<kGroupRows>, Int<kHeadDim>>{});
    clear(dq);

    bool seen = false;  // a tile of the warp's query block
    for (typename Tiles::Place place;; ++place) {
      const int stage = place.index();
      wait_for(tiles.first_full[stage], place.phase());
      const SlotKeyNote note = tiles.notes[stage];
      if (note.rows == 0) break;
      if ((note.takers & mine) != 0) {
        seen = seen || (note.takers >> number & 1);
        wait_for(tiles.second_full[stage], place.phase());
        auto left = dscores(_, _, _, stage * kComputing + group);
        start_product<true>(mma, left, keys(_, 0, _, stage), dq);
        finish_product<0>(dq);
      }
      tiles.release(stage);
    }
    if (!seen) return;
    add_to_queries(arguments, query, first_row_of_warp(warp, kQueryRows) + thread % 32 / 4, dq);
  }
};

}  // namespace sprocket::kernels::cuda::sm90

namespace sprocket::kernels::cuda {

template <Element kElement, int kHeadDim>
void launch_query_gradients_sm90(const BackwardArguments& arguments, CUstream_st* stream) {
  const SegmentAttentionProblem& problem = arguments.problem;
  if (problem.max_kv_rows == 0) return;  // slots have no rows, and maps need some
  const sm90::QueryGradientLaunch launch{arguments, make_key_maps(problem),
                                         make_slot_map(arguments)};
  switch (query_tile_rows(problem.max_query_rows)) {
    case 32:
      return sm90::launch<sm90::QueryGradientKernel<kElement, kHeadDim, 32>>(launch, stream);
    case 64:
      return sm90::launch<sm90::QueryGradientKernel<kElement, kHeadDim, 64>>(launch, stream);
    case 128:
      return sm90::launch<sm90::QueryGradientKernel<kElement, kHeadDim, 128>>(launch, stream);
  }
}

}  // namespace sprocket::kernels::cuda
