// The fundamental types of PTX.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace sprocket::cuda_simulator {

constexpr int kWarpSize = 32;
// One bit for each lane of a warp.
using Lanes = uint32_t;
constexpr Lanes kAllLanes = ~0u;

enum class Type : uint8_t {
  kPredicate,
  kB8,
  kU8,
  kS8,
  kB16,
  kU16,
  kS16,
  kF16,
  kBf16,
  kB32,
  kU32,
  kS32,
  kF32,
  kTf32,
  kF16x2,
  kBf16x2,
  kB64,
  kU64,
  kS64,
  kF64,
  kB128,
};

// The type that a modifier such as "u32" names, if any.
std::optional<Type> type_named(std::string_view name);
std::string_view type_name(Type type);

// Bytes of a value of the type; a predicate has none of its own.
unsigned type_bytes(Type type);
bool is_signed(Type type);
bool is_float(Type type);

// State spaces. Parameters of functions (not kernels) lie in local memory.
enum class Space : uint8_t { kGeneric, kGlobal, kConst, kShared, kSharedCluster, kLocal, kParam };

}  // namespace sprocket::cuda_simulator
