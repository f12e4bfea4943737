// The warp of family sm_90 that loads keys and values. Whole tiles come through tensor maps, one
// instruction for each; of partial ones exactly the rows that exist are copied, zeros for the
// others, so that nothing beyond them is ever read.
#pragma once

#include "kernels/cuda/segment_attention_sm90_lists.cuh"
#include "kernels/cuda/segment_attention_sm90_maps.h"
#include "kernels/cuda/segment_attention_sm90_stages.cuh"

namespace sprocket::kernels::cuda::sm90 {

template <class T, int kHeadDim, int kStages>
struct Producer {
  using Tiles = Stages<T, kHeadDim, kStages>;

  const SegmentAttentionProblem& problem;
  const KvTensorMaps& maps;
  Tiles& tiles;
  int batch, head;
  typename Tiles::Place place{0, 1, 0};  // the first round finds every stage empty

  __device__ void load(const Keys& keys, int tile, unsigned takers) {
    const int rows = rows_of_tile(keys.rows, kKeyTileRows, tile);
    const int64_t row = keys.first_row + int64_t{tile} * kKeyTileRows;
    wait_for(tiles.empty[place.index()], place.phase());
    if (rows == kKeyTileRows) {
      load_whole(keys, static_cast<int>(row), takers);
    } else {
      load_rows(keys, row, rows, takers);
    }
    __syncwarp();
    ++place;
  }

  // Tells those who compute that this was all.
  __device__ void end() {
    wait_for(tiles.empty[place.index()], place.phase());
    if (threadIdx.x % kLanes == 0) {
      tiles.notes[place.index()] = {0, 0, 0};
      arrive_at(tiles.k_full[place.index()]);
    }
  }

 private:
  __device__ void load_whole(const Keys& keys, int row, unsigned takers) {
    if (threadIdx.x % kLanes != 0) return;
    const int stage = place.index();
    const DeviceKvBuffer& buffer = problem.kv[keys.buffer];
    tiles.notes[stage] = {kKeyTileRows, takers, keys.bias2};
    load_by_map(maps.k[keys.buffer], buffer.k, row, tiles.k + stage * Tiles::kTileElements,
                tiles.k_full[stage]);
    load_by_map(maps.v[keys.buffer], buffer.v, row, tiles.v + stage * Tiles::kTileElements,
                tiles.v_full[stage]);
  }

  __device__ void load_by_map(const CUtensorMap& map, const DeviceRows<const void>& rows, int row,
                              T* to, uint64_t& full) {
    expect_bytes(full, Tiles::kTileBytes);
    SM90_TMA_LOAD_5D::copy(&map, &full, static_cast<uint64_t>(TMA::CacheHintSm90::EVICT_NORMAL), to,
                           0, row, 0, map_coordinate(head, rows.head_stride),
                           map_coordinate(batch, rows.batch_stride));
  }

  __device__ void load_rows(const Keys& keys, int64_t row, int rows, unsigned takers) {
    const int stage = place.index();
    const DeviceKvBuffer& buffer = problem.kv[keys.buffer];
    copy_rows(row_of<const T>(buffer.k, batch, row, head), buffer.k.row_stride, rows,
              tiles.k + stage * Tiles::kTileElements);
    copy_rows(row_of<const T>(buffer.v, batch, row, head), buffer.v.row_stride, rows,
              tiles.v + stage * Tiles::kTileElements);
    cp_async_wait<0>();
    cutlass::arch::fence_view_async_shared();  // the products read them another way
    __syncwarp();
    if (threadIdx.x % kLanes != 0) return;
    tiles.notes[stage] = {rows, takers, keys.bias2};
    arrive_at(tiles.k_full[stage]);
    arrive_at(tiles.v_full[stage]);
  }

  __device__ static void copy_rows(const T* first, int64_t row_stride, int rows, T* tile) {
    constexpr int kPieces = kHeadDim / 8;  // of 16 bytes, in a row
    for (int i = threadIdx.x % kLanes; i < kKeyTileRows * kPieces; i += kLanes) {
      const int row = i / kPieces, column = i % kPieces * 8;
      SM80_CP_ASYNC_CACHEGLOBAL_ZFILL<uint128_t>::copy(
          *reinterpret_cast<const uint128_t*>(first + row * row_stride + column),
          *reinterpret_cast<uint128_t*>(tile + place_in_tile(row, column)), row < rows);
    }
  }
};

}  // namespace sprocket::kernels::cuda::sm90
