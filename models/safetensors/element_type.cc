#include "models/safetensors/element_type.h"

#include <array>
#include <cmath>
#include <cstring>

#include "base/error.h"

namespace sprocket::safetensors {
namespace {

struct Row {
  ElementType type;
  std::string_view name;
  size_t size;
  std::optional<DType> dtype;
};

constexpr std::array<Row, 15> kRows = {{
    {ElementType::kF64, "F64", 8, DType::kF64},
    {ElementType::kF32, "F32", 4, DType::kF32},
    {ElementType::kF16, "F16", 2, DType::kF16},
    {ElementType::kBF16, "BF16", 2, DType::kBF16},
    {ElementType::kF8E4M3, "F8_E4M3", 1, std::nullopt},
    {ElementType::kF8E5M2, "F8_E5M2", 1, std::nullopt},
    {ElementType::kI64, "I64", 8, DType::kI64},
    {ElementType::kI32, "I32", 4, DType::kI32},
    {ElementType::kI16, "I16", 2, std::nullopt},
    {ElementType::kI8, "I8", 1, std::nullopt},
    {ElementType::kU64, "U64", 8, std::nullopt},
    {ElementType::kU32, "U32", 4, std::nullopt},
    {ElementType::kU16, "U16", 2, DType::kU16},
    {ElementType::kU8, "U8", 1, DType::kU8},
    {ElementType::kBool, "BOOL", 1, std::nullopt},
}};

const Row& row_of(ElementType type) { return kRows.at(static_cast<size_t>(type)); }

float half_to_float(uint16_t bits) {
  const int exponent = (bits >> 10) & 31;
  const int mantissa = bits & 1023;
  float magnitude = 0;
  if (exponent == 31) {
    magnitude = mantissa == 0 ? INFINITY : NAN;
  } else if (exponent == 0) {
    magnitude = std::ldexp(static_cast<float>(mantissa), -24);
  } else {
    magnitude = std::ldexp(static_cast<float>(mantissa + 1024), exponent - 25);
  }
  return (bits & 0x8000) != 0 ? -magnitude : magnitude;
}

template <class T, class Convert>
void convert(std::span<const std::byte> from, std::span<float> to, Convert one) {
  for (size_t i = 0; i < to.size(); ++i) {
    T value;
    std::memcpy(&value, from.data() + i * sizeof(T), sizeof(T));
    to[i] = one(value);
  }
}

}  // namespace

size_t size_of(ElementType type) { return row_of(type).size; }
std::string_view name_of(ElementType type) { return row_of(type).name; }
std::optional<DType> dtype_of(ElementType type) { return row_of(type).dtype; }

std::optional<ElementType> parse_element_type(std::string_view name) {
  for (const Row& row : kRows) {
    if (row.name == name) return row.type;
  }
  return std::nullopt;
}

const std::string& known_element_types() {
  static const std::string names = [] {
    std::string text;
    for (const Row& row : kRows) text += (text.empty() ? "" : ", ") + std::string(row.name);
    return text;
  }();
  return names;
}

ElementType element_type_of(DType dtype) {
  for (const Row& row : kRows) {
    if (row.dtype == dtype) return row.type;
  }
  throw InternalError(fmt::format("no safetensors type for {}", sprocket::name_of(dtype)));
}

bool convert_to_float(ElementType type, std::span<const std::byte> from, std::span<float> to) {
  SPROCKET_CHECK_EQ(from.size(), to.size() * size_of(type));
  if (type == ElementType::kF32) {
    if (!to.empty()) std::memcpy(to.data(), from.data(), from.size());
  } else if (type == ElementType::kF64) {
    convert<double>(from, to, [](double value) { return static_cast<float>(value); });
  } else if (type == ElementType::kBF16) {
    convert<BFloat16>(from, to, [](BFloat16 value) { return static_cast<float>(value); });
  } else if (type == ElementType::kF16) {
    convert<uint16_t>(from, to, half_to_float);
  } else {
    return false;
  }
  return true;
}

}  // namespace sprocket::safetensors
