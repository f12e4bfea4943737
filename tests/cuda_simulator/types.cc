#include "tests/cuda_simulator/types.h"

#include <array>
#include <utility>

namespace sprocket::cuda_simulator {
namespace {

struct Entry {
  std::string_view name;
  Type type;
  unsigned bytes;
  bool is_signed;
  bool is_float;
};

constexpr std::array<Entry, 21> kTypes{{
    {"pred", Type::kPredicate, 0, false, false}, {"b8", Type::kB8, 1, false, false},
    {"u8", Type::kU8, 1, false, false},          {"s8", Type::kS8, 1, true, false},
    {"b16", Type::kB16, 2, false, false},        {"u16", Type::kU16, 2, false, false},
    {"s16", Type::kS16, 2, true, false},         {"f16", Type::kF16, 2, true, true},
    {"bf16", Type::kBf16, 2, true, true},        {"b32", Type::kB32, 4, false, false},
    {"u32", Type::kU32, 4, false, false},        {"s32", Type::kS32, 4, true, false},
    {"f32", Type::kF32, 4, true, true},          {"tf32", Type::kTf32, 4, true, true},
    {"f16x2", Type::kF16x2, 4, true, true},      {"bf16x2", Type::kBf16x2, 4, true, true},
    {"b64", Type::kB64, 8, false, false},        {"u64", Type::kU64, 8, false, false},
    {"s64", Type::kS64, 8, true, false},         {"f64", Type::kF64, 8, true, true},
    {"b128", Type::kB128, 16, false, false},
}};

const Entry& entry(Type type) {
  static_assert(kTypes.back().type == Type::kB128);
  return kTypes[static_cast<size_t>(type)];
}

}  // namespace

std::optional<Type> type_named(std::string_view name) {
  for (const Entry& e : kTypes) {
    if (e.name == name) return e.type;
  }
  return std::nullopt;
}

std::string_view type_name(Type type) { return entry(type).name; }
unsigned type_bytes(Type type) { return entry(type).bytes; }
bool is_signed(Type type) { return entry(type).is_signed; }
bool is_float(Type type) { return entry(type).is_float; }

}  // namespace sprocket::cuda_simulator
