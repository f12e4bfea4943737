// Selections of one row by one warp. Keys are ordered_bits (kernels/score_key.h) in shared memory.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace sprocket::kernels::cuda {

constexpr uint32_t kAllLanes = 0xffffffffu;

// The value that ordered_bits made the key of; +0 for -0, and a NaN for 0.
__device__ inline float value_of_ordered(uint32_t ordered) {
  if (ordered == 0) return __uint_as_float(0x7fffffffu);
  return __uint_as_float(ordered & 0x80000000u ? ordered & 0x7fffffffu : ~ordered);
}

// ids[0 .. count) = first, first + 1 ...
__device__ inline void list_range(int lane, int32_t first, int count, int32_t* ids) {
  for (int i = lane; i < count; i += 32) ids[i] = first + i;
}

__device__ inline int count_from(int lane, const uint32_t* keys, int size, uint32_t threshold) {
  int count = 0;
  for (int j = lane; j < size; j += 32) count += keys[j] >= threshold;
  return __reduce_add_sync(kAllLanes, count);
}

// The largest threshold that at least `count` of the keys reach; 0 < count <= size.
__device__ inline uint32_t threshold_of(int lane, const uint32_t* keys, int size, int count) {
  uint32_t low = 0xffffffffu, high = 0;
  for (int j = lane; j < size; j += 32) {
    low = min(low, keys[j]);
    high = max(high, keys[j]);
  }
  low = __reduce_min_sync(kAllLanes, low);
  high = __reduce_max_sync(kAllLanes, high);
  if (count_from(lane, keys, size, high) >= count) return high;
  // Enough keys reach `low`, too few reach `high`.
  while (high - low > 1) {
    const uint32_t middle = low + (high - low) / 2;
    const int reached = count_from(lane, keys, size, middle);
    if (reached >= count) {
      low = middle;
    } else {
      high = middle;
    }
    if (reached == count) break;
  }
  return low;
}

// Keys above `threshold` and the first `ties` ones that equal it.
struct Choice {
  uint32_t threshold;
  int ties;
};

// The `count` largest keys, of equal ones the first; 0 < count <= size.
__device__ inline Choice choose_largest(int lane, const uint32_t* keys, int size, int count) {
  const uint32_t threshold = threshold_of(lane, keys, size, count);
  // No key is 0xffffffff: that would be a NaN.
  return {threshold, count - count_from(lane, keys, size, threshold + 1)};
}

// The lanes before this one that belong to a set.
__device__ inline int count_before(int lane, uint32_t lanes) {
  return __popc(lanes & ((1u << lane) - 1));
}

// Walks along a row, 32 keys a step; every lane asks for its own key.
class ChoiceWalk {
 public:
  __device__ explicit ChoiceWalk(Choice choice) : choice_(choice) {}
  // Keys come in ascending order of lanes and steps; `exists` false: this lane has none.
  __device__ bool takes(int lane, uint32_t key, bool exists) {
    const bool tied = exists && key == choice_.threshold;
    const uint32_t tied_lanes = __ballot_sync(kAllLanes, tied);
    const bool taken = exists && (key > choice_.threshold ||
                                  (tied && count_before(lane, tied_lanes) < choice_.ties));
    choice_.ties -= min(choice_.ties, __popc(tied_lanes));
    return taken;
  }

  // What is still to be taken.
  __device__ Choice rest() const { return choice_; }

 private:
  Choice choice_;
};

// ids[0 .. count) = first + the positions of the `count` largest keys, ascending; of equal keys the
// first ones. 0 <= count <= size.
__device__ inline void select_largest(int lane, const uint32_t* keys, int size, int count,
                                      int32_t first, int32_t* ids) {
  if (count == 0) return;
  if (count == size) {
    list_range(lane, first, size, ids);
    return;
  }
  ChoiceWalk walk(choose_largest(lane, keys, size, count));
  for (int j = lane; j - lane < size; j += 32) {
    const bool taken = walk.takes(lane, j < size ? keys[j] : 0, j < size);
    const uint32_t taken_lanes = __ballot_sync(kAllLanes, taken);
    if (taken) ids[count_before(lane, taken_lanes)] = first + j;
    ids += __popc(taken_lanes);
  }
}

}  // namespace sprocket::kernels::cuda
