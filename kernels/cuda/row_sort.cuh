// Sorting and adding up one row by one warp.
#pragma once

#include "kernels/cuda/row_select.cuh"

namespace sprocket::kernels::cuda {

// Descending, in place, in memory that the warp shares. A bitonic sort whose comparisons all look
// the same way: what is missing behind the last key counts as smaller and never moves. The caller
// sees to __syncwarp before; all lanes see the result.
__device__ inline void sort_descending(int lane, uint32_t* keys, int size) {
  const auto order = [&](int i, int j) {
    if (j >= size || keys[i] >= keys[j]) return;
    const uint32_t larger = keys[j];
    keys[j] = keys[i];
    keys[i] = larger;
  };
  for (int length = 2; length / 2 < size; length *= 2) {
    const int half = length / 2;
    for (int pair = lane; pair < (size + length - 1) / length * half; pair += 32) {
      const int first = pair / half * length, offset = pair % half;
      order(first + offset, first + length - 1 - offset);
    }
    __syncwarp();
    for (int distance = half / 2; distance > 0; distance /= 2) {
      for (int pair = lane; pair < (size + 2 * distance - 1) / (2 * distance) * distance;
           pair += 32) {
        const int i = pair / distance * 2 * distance + pair % distance;
        order(i, i + distance);
      }
      __syncwarp();
    }
  }
}

// Of descending keys the ones up to `last`.
__device__ inline Choice choose_up_to(int lane, const uint32_t* sorted, int last) {
  const uint32_t threshold = sorted[last];
  int ties = 0;
  for (int i = lane; i <= last; i += 32) ties += sorted[i] == threshold;
  return {threshold, __reduce_add_sync(kAllLanes, ties)};
}

// Adds terms in the order of the positions, in double: sum = sum + term(0) + term(1) ..., and calls
// step(position, sum) after each until it returns true. The same in all lanes.
template <class Term, class Step>
__device__ double add_in_order(int lane, int size, Term term, Step step) {
  double sum = 0;
  for (int first = 0; first < size; first += 32) {
    const double own = first + lane < size ? term(first + lane) : 0.0;
    const int count = min(32, size - first);
    for (int i = 0; i < count; ++i) {
      sum = __dadd_rn(sum, __shfl_sync(kAllLanes, own, i));
      if (step(first + i, sum)) return sum;
    }
  }
  return sum;
}

// The sum of terms as kernels on hosts add them: eight partial sums, their tree, then what eight do
// not divide. Accumulate(sum, position) gives the next sum. The same in all lanes.
template <class Accumulate>
__device__ double add_by_eight(int lane, int size, Accumulate accumulate) {
  const int whole = size / 8 * 8;
  double sum = 0;
  if (lane < 8) {
    for (int j = lane; j < whole; j += 8) sum = accumulate(sum, j);
  }
  sum = __dadd_rn(sum, __shfl_down_sync(kAllLanes, sum, 4));
  sum = __dadd_rn(sum, __shfl_down_sync(kAllLanes, sum, 2));
  sum = __dadd_rn(sum, __shfl_down_sync(kAllLanes, sum, 1));
  for (int j = whole; j < size; ++j) sum = accumulate(sum, j);
  return __shfl_sync(kAllLanes, sum, 0);
}

}  // namespace sprocket::kernels::cuda
