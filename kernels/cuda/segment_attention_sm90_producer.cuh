// The warp of family sm_90 that loads tiles. Whole ones come through tensor maps, one instruction
// for each; of partial ones exactly the rows that exist are copied, zeros for the others, so that
// nothing beyond them is ever read.
#pragma once

#include "kernels/cuda/segment_attention_sm90_lists.cuh"
#include "kernels/cuda/segment_attention_sm90_maps.h"
#include "kernels/cuda/segment_attention_sm90_stages.cuh"

namespace sprocket::kernels::cuda::sm90 {

// Begins to copy `rows` rows into a tile, zeros for its others. By kThreads threads, of which this
// is number `thread`. The products read them another way than these threads write them: a thread
// that has waited for its copies fences before it tells others.
template <int kHeadDim, int kThreads, class T>
__device__ void copy_rows(const T* first, int64_t row_stride, int rows, T* tile, int thread) {
  constexpr int kPieces = kHeadDim / 8;  // of 16 bytes, in a row
  for (int i = thread; i < kTileRows * kPieces; i += kThreads) {
    const int row = i / kPieces, column = i % kPieces * 8;
    SM80_CP_ASYNC_CACHEGLOBAL_ZFILL<uint128_t>::copy(
        *reinterpret_cast<const uint128_t*>(first + row * row_stride + column),
        *reinterpret_cast<uint128_t*>(tile + place_in_tile(row, column)), row < rows);
  }
}
__device__ inline void finish_copies() {
  cp_async_wait<0>();
  cutlass::arch::fence_view_async_shared();
}

// A tensor that tiles are loaded from.
struct Source {
  const CUtensorMap& map;
  const DeviceRows<const void>& rows;
};

// A whole tile, or panel of one, through its map. By one thread; `full` expects the bytes.
__device__ inline void load_by_map(const CUtensorMap& map, TMA::CacheHintSm90 hint, int row,
                                   int panel, int head, int batch, void* to, uint64_t& full) {
  SM90_TMA_LOAD_5D::copy(&map, &full, static_cast<uint64_t>(hint), to, 0, row, panel, head, batch);
}

template <class T, int kHeadDim, class Tiles>
struct Producer {
  Tiles& tiles;
  int batch, head;
  typename Tiles::Place place{0, 1, 0};  // the first round finds every stage empty

  // `count` rows of both from `row` on. prepare(stage) is what else the stage needs, its note above
  // all; the whole warp calls it.
  template <class Prepare>
  __device__ void load(const Source& first, const Source& second, int64_t row, int count,
                       const Prepare& prepare) {
    const int stage = place.index();
    T* const first_tile = tiles.first + stage * Tiles::kTileElements;
    T* const second_tile = tiles.second + stage * Tiles::kTileElements;
    const bool is_leader = threadIdx.x % kLanes == 0;
    wait_for(tiles.empty[stage], place.phase());
    if (count == kTileRows) {
      if (is_leader) {
        Barrier::expect_transaction(&tiles.first_full[stage], Tiles::kTileBytes);
        load_by_map(first, static_cast<int>(row), first_tile, tiles.first_full[stage]);
        Barrier::arrive_and_expect_tx(&tiles.second_full[stage], Tiles::kTileBytes);
        load_by_map(second, static_cast<int>(row), second_tile, tiles.second_full[stage]);
      }
      prepare(stage);
      __syncwarp();
    } else {
      copy(first, row, count, first_tile);
      copy(second, row, count, second_tile);
      prepare(stage);
      finish_copies();
      __syncwarp();
      if (is_leader) arrive_at(tiles.second_full[stage]);
    }
    finish(stage);
  }

  // `count` rows of one, and for the second place what load_second(stage), called by the whole
  // warp, loads by maps: all `second_bytes` of it.
  template <class LoadSecond, class Prepare>
  __device__ void load_beside(const Source& first, int64_t row, int count, int second_bytes,
                              const LoadSecond& load_second, const Prepare& prepare) {
    const int stage = place.index();
    T* const first_tile = tiles.first + stage * Tiles::kTileElements;
    const bool is_leader = threadIdx.x % kLanes == 0, is_whole = count == kTileRows;
    wait_for(tiles.empty[stage], place.phase());
    if (is_leader) {
      if (is_whole) {
        Barrier::expect_transaction(&tiles.first_full[stage], Tiles::kTileBytes);
        load_by_map(first, static_cast<int>(row), first_tile, tiles.first_full[stage]);
      }
      Barrier::arrive_and_expect_tx(&tiles.second_full[stage], second_bytes);
      prepare(stage);
    }
    __syncwarp();
    load_second(stage);
    if (!is_whole) {
      copy(first, row, count, first_tile);
      finish_copies();
    }
    __syncwarp();
    finish(stage);
  }

  // Tells those who compute that this was all.
  __device__ void end() {
    const int stage = place.index();
    wait_for(tiles.empty[stage], place.phase());
    if (threadIdx.x % kLanes == 0) {
      tiles.notes[stage].rows = 0;
      arrive_at(tiles.first_full[stage]);
    }
  }

 private:
  __device__ void finish(int stage) {
    if (threadIdx.x % kLanes == 0) arrive_at(tiles.first_full[stage]);
    __syncwarp();
    ++place;
  }

  __device__ void load_by_map(const Source& from, int row, T* to, uint64_t& full) {
    sm90::load_by_map(from.map, TMA::CacheHintSm90::EVICT_NORMAL, row, 0,
                      map_coordinate(head, from.rows.head_stride),
                      map_coordinate(batch, from.rows.batch_stride), to, full);
  }

  __device__ void copy(const Source& from, int64_t row, int count, T* to) {
    copy_rows<kHeadDim, kLanes>(row_of<const T>(from.rows, batch, row, head), from.rows.row_stride,
                                count, to, threadIdx.x % kLanes);
  }
};

}  // namespace sprocket::kernels::cuda::sm90
