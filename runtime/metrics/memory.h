#pragma once

#include <cstdint>
#include <optional>

#include <c10/core/Device.h>

namespace sprocket::runtime {

// The most that a rank whose tensors live on `device` took so far: of the processor's memory what
// was resident of this process, which ranks that are threads of it share; of a device what its
// allocator took.
int64_t peak_memory_bytes(const at::Device& device);

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
