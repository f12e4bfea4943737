// The stages that tiles go through in pairs (keys and values, queries and their gradients, keys and
// gradients of scores), from the warp that loads them to the warpgroups that compute.
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

// Note says what a stage holds; its `rows`, of a tile, are 0 at the end.
template <class T, int kHeadDim, int kStages_, class Note,
          int kSecondElements = kTileRows* kHeadDim>
struct Stages {
  static constexpr int kStages = kStages_;
  static constexpr int kTileElements = kTileRows * kHeadDim;
  static constexpr int kTileBytes = kTileElements * static_cast<int>(sizeof(T));
  using Place = cutlass::PipelineState<kStages>;

  alignas(1024) T first[kStages * kTileElements];
  alignas(1024) T second[kStages * kSecondElements];
  // The tile has arrived; of the first: and everything else that the stage has.
  uint64_t first_full[kStages], second_full[kStages];
  uint64_t empty[kStages];  // every warp that computes is past it
  Note notes[kStages];

  // By one thread; the others see it after a barrier.
  __device__ void begin(int computing_warps) {
    for (int i = 0; i < kStages; ++i) {
      Barrier::init(&first_full[i], 1);
      Barrier::init(&second_full[i], 1);
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
