// A copy of what a rank writes of a checkpoint, so that training may go on changing it.
#pragma once

#include <cstddef>
#include <memory>
#include <span>

namespace sprocket::runtime {

// Memory that grows to the largest copy and is kept from one save to the next.
class Staging {
 public:
  // Makes room for so many bytes; what was copied before is gone.
  void reserve(size_t bytes);
  // Copies behind what was copied since reserve(), which made the room. The result lives until the
  // next reserve().
  std::span<const std::byte> copy(std::span<const std::byte> data);

 private:
  std::unique_ptr<std::byte[]> memory_;
  size_t capacity_ = 0, used_ = 0;
};

}  // namespace sprocket::runtime
