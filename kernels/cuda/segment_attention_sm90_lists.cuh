// The union of the lists of neighbouring blocks, as the warp that loads tiles reads it. All lanes
// of the warp call together; lane i keeps where list i is.
#pragma once

#include "kernels/cuda/segment_attention_device.cuh"
#include "kernels/cuda/segment_attention_sm90_tiles.h"

namespace sprocket::kernels::cuda::sm90 {

inline constexpr int kLanes = 32;
inline constexpr unsigned kAllLanes = 0xffffffffu;

// Entry has `int id`. Lists are ascending. Each lane looks an entry of a list up, so that the
// latency is paid once for 32 of them; entries that `make` refuses are left out.
template <class Entry, int kLists>
class BlockUnion {
 public:
  using Storage = Entry[kLists][kLanes];

  __device__ explicit BlockUnion(Storage& entries) : entries_(entries) {
    static_assert(kLists <= kLanes);
  }

  // The list of the lane has these places of the table. Lanes that are not asked have no list.
  __device__ void begin(uint32_t first, uint32_t last) {
    ahead_ = first;
    last_ = last;
  }

  // A bit for each list that has the next block, 0 at the end. `entry` is that of the lane's list
  // if it is one of them, else that of the first of them.
  template <class Make>
  __device__ unsigned next(const Make& make, Entry& entry) {
    const int lane = threadIdx.x % kLanes;
    while (const unsigned empty = __ballot_sync(kAllLanes, place_ == count_ && ahead_ < last_)) {
      fetch(__ffs(empty) - 1, make);
    }
    const int id = place_ < count_ ? entries_[lane][place_].id : kNoBlock;
    const int smallest = __reduce_min_sync(kAllLanes, id);
    if (smallest == kNoBlock) return 0;
    const bool takes = id == smallest;
    const unsigned takers = __ballot_sync(kAllLanes, takes);
    const int list = takes ? lane : __ffs(takers) - 1;
    entry = entries_[list][__shfl_sync(kAllLanes, place_, list)];
    if (takes) ++place_;
    return takers;
  }

 private:
  template <class Make>
  __device__ void fetch(int list, const Make& make) {
    const int lane = threadIdx.x % kLanes;
    const uint32_t index = __shfl_sync(kAllLanes, ahead_, list) + lane;
    Entry entry;
    const bool valid = index < __shfl_sync(kAllLanes, last_, list) && make(index, entry);
    const unsigned votes = __ballot_sync(kAllLanes, valid);
    __syncwarp();  // everybody has read the former entries
    if (valid) entries_[list][__popc(votes & ((1u << lane) - 1))] = entry;
    __syncwarp();
    if (lane != list) return;
    ahead_ += kLanes;
    place_ = 0;
    count_ = __popc(votes);
  }

  Storage& entries_;  // in shared memory
  uint32_t ahead_ = 0, last_ = 0;
  int place_ = 0, count_ = 0;
};

}  // namespace sprocket::kernels::cuda::sm90
