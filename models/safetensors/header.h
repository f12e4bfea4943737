// The header of a safetensors file: u64 little-endian length, then that many bytes of JSON.
//
// Files come from anywhere, so nothing in them is trusted: every length, offset and product is
// checked before it is used.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "models/safetensors/element_type.h"

namespace sprocket::safetensors {

inline constexpr uint64_t kMaxHeaderBytes = 100'000'000;

struct TensorInfo {
  std::string name;
  ElementType type = ElementType::kF32;
  std::vector<int64_t> shape;  // empty: a scalar
  uint64_t offset = 0;         // from the start of the data, bytes
  uint64_t bytes = 0;

  int64_t elements() const { return static_cast<int64_t>(bytes / size_of(type)); }
};

using Metadata = std::map<std::string, std::string>;

struct Header {
  std::vector<TensorInfo> tensors;  // in the order of their data: no holes, no overlaps
  Metadata metadata;
  uint64_t data_begin = 0;  // from the start of the file, bytes
};

// Parses and checks the header of a whole file's bytes. `file` names it in messages.
// Throws InputError (file, tensor, expected, found) for: fewer than 8 bytes; header length over
// kMaxHeaderBytes or past the end; text that is no JSON object of the format; an unknown or
// duplicate key; unknown element type; negative or overflowing dimensions; a byte range that is not
// type x shape; ranges that leave holes, overlap, or do not end where the file ends.
Header parse_header(std::span<const std::byte> bytes, const std::string& file);

// Elements of a shape. Throws InputError naming `what` when a dimension is negative or the product
// times `element_bytes` leaves 63 bits.
int64_t checked_elements(std::span<const int64_t> shape, size_t element_bytes,
                         const std::string& what);

}  // namespace sprocket::safetensors
