// How a warp writes a row of a table as a bitmap (kernels/cuda/row_bitmaps.h).
#pragma once

#include "kernels/cuda/row_bitmaps.h"
#include "kernels/cuda/row_select.cuh"

namespace sprocket::kernels::cuda {

// All of [0, count).
__device__ inline void write_everything(int lane, int count, uint32_t* words) {
  for (int first = lane * 32; first < count; first += 32 * 32) {
    const int bits = min(32, count - first);
    words[first / 32] = bits == 32 ? kAllLanes : (1u << bits) - 1;
  }
}

// [0, prefix), then what takes(key, exists) takes of keys[0 .. size), whose ids follow; all lanes
// call it, keys ascend with the lanes. Returns how many it takes.
template <class Takes>
__device__ int write_taken(int lane, const uint32_t* keys, int size, int prefix, uint32_t* words,
                           Takes takes) {
  int taken = 0;
  for (int first = 0; first < prefix + size; first += 32) {
    const int j = first + lane - prefix;
    const bool exists = j >= 0 && j < size;
    const uint32_t bits = __ballot_sync(kAllLanes, takes(exists ? keys[j] : 0, exists));
    const uint32_t prefix_bits = __ballot_sync(kAllLanes, j < 0);
    if (lane == 0) words[first / 32] = bits | prefix_bits;
    taken += __popc(bits);
  }
  return taken;
}

__device__ inline void write_choice(int lane, const uint32_t* keys, int size, int prefix,
                                    uint32_t* words, Choice choice) {
  ChoiceWalk walk(choice);
  write_taken(lane, keys, size, prefix, words,
              [&](uint32_t key, bool exists) { return walk.takes(lane, key, exists); });
}

}  // namespace sprocket::kernels::cuda
