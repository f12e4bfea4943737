// The stages that tiles of keys and values go through, from the warp that loads them to the
// warpgroups that compute.
#pragma once

#include <cutlass/arch/barrier.h>
#include <cutlass/pipeline/sm90_pipeline.hpp>

#include "kernels/cuda/segment_attention_sm90_layouts.h"

namespace sprocket::kernels::cuda::sm90 {

using Barrier = cutlass::arch::ClusterTransactionBarrier;

// The library's barriers do not tell the compiler that ordinary accesses stay on their side.
__device__ inline void wait_for(const uint64_t& barrier, uint32_t phase) {
  Barrier::wait(&barrier, phase);
  asm volatile("" ::: "memory");
}
__device__ inline void arrive_at(const uint64_t& barrier) {
  asm volatile("" ::: "memory");
  Barrier::arrive(&barrier);
}
__device__ inline void expect_bytes(const uint64_t& barrier, uint32_t bytes) {
  asm volatile("" ::: "memory");
  Barrier::arrive_and_expect_tx(&barrier, bytes);
}

// What a stage holds.
struct TileNote {
  int rows;         // of keys; 0: the end of the list
  unsigned takers;  // a bit for each query block of the thread block that lists the tile
  float bias2;      // in base 2
};

template <class T, int kHeadDim, int kStages_>
struct Stages {
  static constexpr int kStages = kStages_;
  static constexpr int kTileElements = kKeyTileRows * kHeadDim;
  static constexpr int kTileBytes = kTileElements * static_cast<int>(sizeof(T));
  using Place = cutlass::PipelineState<kStages>;

  alignas(1024) T k[kStages * kTileElements];
  alignas(1024) T v[kStages * kTileElements];
  uint64_t k_full[kStages], v_full[kStages];  // the tile has arrived; of k_full: and the note
  uint64_t empty[kStages];                    // every warp that computes is past it
  TileNote notes[kStages];

  // By one thread; the others see it after a barrier.
  __device__ void begin(int computing_warps) {
    for (int i = 0; i < kStages; ++i) {
      Barrier::init(&k_full[i], 1);
      Barrier::init(&v_full[i], 1);
      Barrier::init(&empty[i], computing_warps);
    }
    cutlass::arch::fence_barrier_init();
  }

  // By a whole warp that computes, after its last access to the stage.
  __device__ void release(int stage) {
    __syncwarp();
    if (threadIdx.x % 32 == 0) arrive_at(empty[stage]);
  }
};

}  // namespace sprocket::kernels::cuda::sm90
