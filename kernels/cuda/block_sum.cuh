// Sums over the threads of a block in one fixed order: a tree in every warp, then warp after warp.
// The result depends on the values and on the number of threads alone.
#pragma once

#include <cstdint>

namespace sprocket::kernels::cuda {

inline constexpr int kWarp = 32;
inline constexpr int kMaxWarps = 32;

// Scratch of a block that sums at most kMost values at a time. Declared __shared__.
template <class V, int kMost>
struct BlockSumScratch {
  V of_warp[2][kMost][kMaxWarps];
};

// Every thread of the block, which consists of whole warps, calls sum() as often as the others.
template <class V, int kMost>
class BlockSum {
 public:
  __device__ explicit BlockSum(BlockSumScratch<V, kMost>& scratch) : scratch_(scratch) {}

  // Replaces each value by its sum over the block, in every thread.
  template <int kCount>
  __device__ __forceinline__ void sum(V (&values)[kCount]) {
    static_assert(kCount <= kMost);
#pragma unroll
    for (int distance = kWarp / 2; distance > 0; distance /= 2) {
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        values[i] += __shfl_xor_sync(0xffffffffu, values[i], distance);
      }
    }
    const int warps = static_cast<int>(blockDim.x) / kWarp;
    if (warps == 1) return;
    // Two halves in turn: a thread may still read one while the next sum is written to the other.
    V(&of_warp)[kMost][kMaxWarps] = scratch_.of_warp[turn_];
    turn_ ^= 1;
    const int warp = static_cast<int>(threadIdx.x) / kWarp;
    if (threadIdx.x % kWarp == 0) {
#pragma unroll
      for (int i = 0; i < kCount; ++i) of_warp[i][warp] = values[i];
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      V total = of_warp[i][0];
      for (int w = 1; w < warps; ++w) total += of_warp[i][w];
      values[i] = total;
    }
  }

 private:
  BlockSumScratch<V, kMost>& scratch_;
  int turn_ = 0;
};

}  // namespace sprocket::kernels::cuda
