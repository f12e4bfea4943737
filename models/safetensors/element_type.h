// Element types of the safetensors format. It has more of them than the program computes with.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/dtype.h"

namespace sprocket::safetensors {

enum class ElementType : uint8_t {
  kF64,
  kF32,
  kF16,
  kBF16,
  kF8E4M3,
  kF8E5M2,
  kI64,
  kI32,
  kI16,
  kI8,
  kU64,
  kU32,
  kU16,
  kU8,
  kBool,
};

// Bytes of one element: 1, 2, 4 or 8.
size_t size_of(ElementType type);
// The name in a file's header: "F32", "BF16", "BOOL".
std::string_view name_of(ElementType type);
// nullopt: no such type is known.
std::optional<ElementType> parse_element_type(std::string_view name);
// All known names, for messages: "F64, F32, …".
const std::string& known_element_types();

ElementType element_type_of(DType dtype);
// nullopt: the program has no arithmetic for this type.
std::optional<DType> dtype_of(ElementType type);

// Converts little-endian elements to float (F64 rounds to nearest). Floating types of 2 to 8 bytes
// only; returns false for any other. from.size() == to.size() * size_of(type).
bool convert_to_float(ElementType type, std::span<const std::byte> from, std::span<float> to);

}  // namespace sprocket::safetensors
