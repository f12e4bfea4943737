#pragma once

#include <cstdint>
#include <optional>

namespace sprocket::runtime {

// Largest resident memory of this process so far. Ranks that are threads of one process share it.
int64_t peak_memory_bytes();

// How far the memory of this process grows. Free memory of the allocator is given back first;
// mapped files (code, inputs) do not count. One at a time: the kernel has one high-water mark.
class MemoryGrowth {
 public:
  MemoryGrowth();
  // The most that was in use since construction, beyond what was in use then. Nothing where the
  // system does not let a process reset its high-water mark.
  std::optional<int64_t> peak_bytes() const;

 private:
  int64_t anonymous_at_start_ = 0;
  bool reset_ = false;
};

}  // namespace sprocket::runtime
