// Cuts the memory that a caller of the segment attention kernel gave into the kernel's arrays.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <span>
#include <type_traits>

namespace sprocket::kernels {

// Without memory it only counts, so that the size asked for and its use come from the same code.
class WorkspaceArena {
 public:
  static constexpr int64_t kAlignment = 64;

  WorkspaceArena() = default;
  explicit WorkspaceArena(std::span<std::byte> memory) {
    const auto address = reinterpret_cast<uintptr_t>(memory.data());
    base_ = memory.data() + (kAlignment - address % kAlignment) % kAlignment;
  }

  // 64-byte aligned, not initialised; null while counting.
  template <class T>
  T* take(int64_t count) {
    static_assert(std::is_trivially_destructible_v<T>);
    std::byte* const at = base_ == nullptr ? nullptr : base_ + used_;
    used_ += (count * static_cast<int64_t>(sizeof(T)) + kAlignment - 1) / kAlignment * kAlignment;
    return reinterpret_cast<T*>(at);
  }

  // A copy of `value`; null while counting.
  template <class T>
  T* place(const T& value) {
    T* const at = take<T>(1);
    return at == nullptr ? nullptr : new (at) T(value);
  }

  // Bytes that everything taken so far needs, wherever the memory begins.
  int64_t bytes() const { return used_ + kAlignment - 1; }

 private:
  std::byte* base_ = nullptr;
  int64_t used_ = 0;
};

}  // namespace sprocket::kernels
