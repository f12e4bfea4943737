// The union of the lists of neighbouring blocks, as the warp that loads tiles reads it. All lanes
// of the warp call together and learn the same.
#pragma once

#include "kernels/cuda/segment_attention_device.cuh"
#include "kernels/cuda/segment_attention_sm90_tiles.h"

namespace sprocket::kernels::cuda::sm90 {

inline constexpr int kLanes = 32;

// One list, ascending. Each lane looks an entry up, so that the latency is paid once for 32 of
// them; entries that `make` refuses are left out. Entry has `int id`.
template <class Entry>
class BlockList {
 public:
  __device__ void begin(Entry* entries, uint32_t first, uint32_t last) {
    entries_ = entries;
    ahead_ = first;
    last_ = last;
  }

  // The next block's id, or kNoBlock.
  template <class Make>
  __device__ int head(const Make& make) {
    while (place_ == count_) {
      if (ahead_ >= last_) return kNoBlock;
      fetch(make);
    }
    return entries_[place_].id;
  }

  __device__ const Entry& take() { return entries_[place_++]; }

 private:
  template <class Make>
  __device__ void fetch(const Make& make) {
    const uint32_t lane = threadIdx.x % kLanes, index = ahead_ + lane;
    Entry entry;
    const bool valid = index < last_ && make(index, entry);
    const unsigned votes = __ballot_sync(0xffffffffu, valid);
    __syncwarp();  // everybody has read the former entries
    if (valid) entries_[__popc(votes & ((1u << lane) - 1))] = entry;
    __syncwarp();
    ahead_ += kLanes;
    place_ = 0;
    count_ = __popc(votes);
  }

  Entry* entries_ = nullptr;  // [kLanes] in shared memory
  uint32_t ahead_ = 0, last_ = 0;
  int place_ = 0, count_ = 0;
};

template <class Entry, int kLists>
struct BlockUnion {
  using Storage = Entry[kLists][kLanes];

  BlockList<Entry> lists[kLists];

  // A bit for each list that has the next block, 0 at the end; visit(list, entry) for each of them.
  template <class Make, class Visit>
  __device__ unsigned next(const Make& make, const Visit& visit) {
    int heads[kLists];
#pragma unroll
    for (int i = 0; i < kLists; ++i) heads[i] = lists[i].head(make);
    const unsigned takers = takers_of(smallest_head(heads), heads);
#pragma unroll
    for (int i = 0; i < kLists; ++i) {
      if (takers >> i & 1) visit(i, lists[i].take());
    }
    return takers;
  }
};

}  // namespace sprocket::kernels::cuda::sm90
