#include "parallel/attention/device_query.h"

#include <algorithm>
#include <limits>

#include "base/error.h"

namespace sprocket::parallel {

int longest_row(const kernels::SegmentTable& table) {
  int64_t longest = 0;
  for (size_t row = 1; row < table.row_offsets.size(); ++row) {
    longest = std::max(longest, table.row_offsets[row] - table.row_offsets[row - 1]);
  }
  return static_cast<int>(longest);
}

int longest_block(const std::vector<int64_t>& offsets) {
  int64_t longest = 0;
  for (size_t i = 1; i < offsets.size(); ++i) {
    longest = std::max(longest, offsets[i] - offsets[i - 1]);
  }
  return static_cast<int>(longest);
}

int longest_block(const kernels::KvBlockMap& map) {
  int longest = 0;
  for (const kernels::KvBlock& block : map.blocks) longest = std::max(longest, block.rows);
  return longest;
}

std::vector<int32_t> narrowed(const std::vector<int64_t>& values) {
  std::vector<int32_t> narrow;
  narrow.reserve(values.size());
  for (const int64_t value : values) {
    SPROCKET_CHECK(0 <= value && value <= std::numeric_limits<int32_t>::max(),
                   "expected a count of 31 bits, found {}", value);
    narrow.push_back(static_cast<int32_t>(value));
  }
  return narrow;
}

}  // namespace sprocket::parallel
