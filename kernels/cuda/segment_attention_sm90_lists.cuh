// The union of the lists of neighbouring query blocks, as the warp that loads keys reads it. All
// lanes of the warp call together and learn the same.
#pragma once

#include "kernels/cuda/segment_attention_device.cuh"
#include "kernels/cuda/segment_attention_sm90_tiles.h"

namespace sprocket::kernels::cuda::sm90 {

inline constexpr int kLanes = 32;

// A KV block that has rows here.
struct Keys {
  int64_t first_row;
  float bias2;  // in base 2
  int id;
  int16_t rows;
  int16_t buffer;
};

// One list. Each lane looks an entry up, so that the latency is paid once for 32 of them; entries
// that `make` refuses are left out.
class KeyList {
 public:
  __device__ void begin(Keys* entries, uint32_t first, uint32_t last) {
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

  __device__ Keys take() { return entries_[place_++]; }

 private:
  template <class Make>
  __device__ void fetch(const Make& make) {
    const uint32_t lane = threadIdx.x % kLanes, index = ahead_ + lane;
    Keys entry;
    const bool valid = index < last_ && make(index, entry);
    const unsigned votes = __ballot_sync(0xffffffffu, valid);
    __syncwarp();  // everybody has read the former entries
    if (valid) entries_[__popc(votes & ((1u << lane) - 1))] = entry;
    __syncwarp();
    ahead_ += kLanes;
    place_ = 0;
    count_ = __popc(votes);
  }

  Keys* entries_ = nullptr;  // [kLanes] in shared memory
  uint32_t ahead_ = 0, last_ = 0;
  int place_ = 0, count_ = 0;
};

template <int kLists>
struct KeyUnion {
  using Storage = Keys[kLists][kLanes];

  KeyList lists[kLists];

  // The next block, and a bit for each list that has it; 0 at the end.
  template <class Make>
  __device__ unsigned next(Keys& keys, const Make& make) {
    int heads[kLists];
#pragma unroll
    for (int i = 0; i < kLists; ++i) heads[i] = lists[i].head(make);
    const unsigned takers = takers_of(smallest_head(heads), heads);
#pragma unroll
    for (int i = 0; i < kLists; ++i) {
      if (takers >> i & 1) keys = lists[i].take();
    }
    return takers;
  }
};

}  // namespace sprocket::kernels::cuda::sm90
