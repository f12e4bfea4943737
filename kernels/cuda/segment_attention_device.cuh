// What the kernels of every family read of a problem.
#pragma once

#include "kernels/cuda/segment_attention_problem.h"
#include "kernels/cuda/segment_attention_tiles.h"

namespace sprocket::kernels::cuda {

inline constexpr float kLog2E = 1.44269504088896341f;
inline constexpr float kLn2 = 0.693147180559945309f;

// 2^x; 0 for -inf.
__device__ inline float exp2_fast(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

__device__ inline float negative_infinity() { return __int_as_float(0xff800000); }

// The query block of a row of the table.
struct QueryBlock {
  int64_t row;  // of the table
  int batch, head;
  int64_t first;  // row of q
  int rows;       // of the block
  int used;       // of them take part
};

__device__ inline QueryBlock query_block(const SegmentAttentionProblem& problem, int batch_head,
                                         int block) {
  QueryBlock result;
  result.row = int64_t{batch_head} * problem.table.query_blocks + block;
  result.batch = batch_head / problem.table.heads;
  result.head = batch_head % problem.table.heads;
  result.first = problem.query_offsets[block];
  result.rows = problem.query_offsets[block + 1] - problem.query_offsets[block];
  result.used = problem.query_rows == nullptr ? result.rows : problem.query_rows[result.row];
  if (result.used > problem.max_query_rows) __trap();  // a tile could not hold them
  return result;
}

__device__ inline DeviceKvBlock kv_block(const SegmentAttentionProblem& problem, int batch_head,
                                         int block) {
  const int64_t base = problem.map.per_head ? int64_t{batch_head} * problem.table.kv_blocks : 0;
  const DeviceKvBlock result = problem.map.blocks[base + block];
  if (result.rows > problem.max_kv_rows) __trap();  // a slot of the backward could not hold them
  return result;
}

template <class T, class U>
__device__ T* row_of(const DeviceRows<U>& rows, int batch, int64_t row, int head) {
  return static_cast<T*>(rows.data) + batch * rows.batch_stride + row * rows.row_stride +
         head * rows.head_stride;
}

// [B, H, Lq]
__device__ inline int64_t statistic_index(const SegmentAttentionProblem& problem, int batch_head,
                                          int64_t row) {
  return int64_t{batch_head} * problem.queries + row;
}

// Tiles of a list of blocks, one after the other. A thread fetches an entry of the list each, so
// that the latency of looking up a block is paid once for many; entries that `make` refuses (blocks
// without rows here) are left out. All threads of a block call next() together.
//
// Entry has `int rows`, the valid rows of the block.
template <class Entry, int kThreads, int kTileRows>
class TileQueue {
 public:
  static constexpr int kCapacity = kThreads < 128 ? kThreads : 128;
  static constexpr int kWarps = kThreads / 32;

  struct Storage {
    Entry entries[kCapacity];
    int warp_counts[kWarps];
  };

  // Of the list's places [first, last).
  __device__ TileQueue(Storage& storage, int64_t first, int64_t last)
      : storage_(storage), ahead_(first), last_(last) {}

  // False at the end of the list. `tile` is the number of the tile in its block.
  template <class Make>
  __device__ bool next(Entry& entry, int& tile, const Make& make) {
    if (tiles_left_ > 0) {
      --tiles_left_;
      ++tile;
      return true;
    }
    while (place_ == count_) {
      if (ahead_ >= last_) return false;
      fetch(make);
    }
    entry = storage_.entries[place_++];
    tile = 0;
    tiles_left_ = tiles_of(entry.rows, kTileRows) - 1;
    return true;
  }

 private:
  template <class Make>
  __device__ void fetch(const Make& make) {
    const int64_t index = ahead_ + threadIdx.x;
    Entry entry;
    const bool valid = threadIdx.x < kCapacity && index < last_ && make(index, entry);
    const unsigned votes = __ballot_sync(0xffffffffu, valid);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    if (lane == 0) storage_.warp_counts[warp] = __popc(votes);
    __syncthreads();  // also: everybody has read the former entries
    int place = __popc(votes & ((1u << lane) - 1));
    count_ = 0;
#pragma unroll
    for (int i = 0; i < kWarps; ++i) {
      const int in_warp = storage_.warp_counts[i];
      if (i < warp) place += in_warp;
      count_ += in_warp;
    }
    if (valid) storage_.entries[place] = entry;
    __syncthreads();
    ahead_ += kCapacity;
    place_ = 0;
  }

  Storage& storage_;
  int64_t ahead_, last_;
  int place_ = 0, count_ = 0, tiles_left_ = 0;
};

}  // namespace sprocket::kernels::cuda
