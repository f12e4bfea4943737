// Scratch memory of a kernel call, aligned to a cache line and a vector.
//
// Large buffers come from a process-wide store of regions that former calls gave back: fresh pages
// from the system cost as much as a sparse attention pass over short sequences. The store keeps at
// most kScratchKept bytes.
#pragma once

#include <cstddef>
#include <memory>
#include <type_traits>

namespace sprocket::kernels {

inline constexpr size_t kScratchKept = size_t{256} << 20;

namespace internal {

struct ScratchRegion {
  void* data = nullptr;
  size_t bytes = 0;
};

// At least `bytes`, 64-byte aligned, not initialised. Throws std::bad_alloc. Thread-safe.
ScratchRegion take_scratch(size_t bytes);
void give_back_scratch(ScratchRegion region);

}  // namespace internal

template <class T>
class AlignedBuffer {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  AlignedBuffer() = default;
  AlignedBuffer(const AlignedBuffer&) = delete;
  AlignedBuffer& operator=(const AlignedBuffer&) = delete;
  ~AlignedBuffer() { internal::give_back_scratch(region_); }

  // At least `count` elements; growing loses the contents, and new elements are not initialised.
  T* reserve(size_t count) {
    if (count * sizeof(T) > region_.bytes) {
      internal::give_back_scratch(region_);
      region_ = {};
      region_ = internal::take_scratch(count * sizeof(T));
    }
    return data();
  }
  T* data() const { return static_cast<T*>(region_.data); }

 private:
  internal::ScratchRegion region_;
};

}  // namespace sprocket::kernels
