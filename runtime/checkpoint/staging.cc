#include "runtime/checkpoint/staging.h"

#include <algorithm>

#include "base/error.h"

namespace sprocket::runtime {

void Staging::reserve(size_t bytes) {
  used_ = 0;
  if (bytes <= capacity_) return;
  memory_.reset();
  memory_ = std::make_unique_for_overwrite<std::byte[]>(bytes);
  capacity_ = bytes;
}

std::span<const std::byte> Staging::copy(std::span<const std::byte> data) {
  SPROCKET_CHECK(used_ + data.size() <= capacity_, "{} bytes beside {}, room for {}", data.size(),
                 used_, capacity_);
  std::byte* const begin = memory_.get() + used_;
  std::copy(data.begin(), data.end(), begin);
  used_ += data.size();
  return {begin, data.size()};
}

}  // namespace sprocket::runtime
