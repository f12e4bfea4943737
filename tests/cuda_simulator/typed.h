// Handlers by type: f.template operator()<T>() for the T that holds a PTX type.
#pragma once

#include "tests/cuda_simulator/decoder.h"
#include "tests/cuda_simulator/floats.h"
#include "tests/cuda_simulator/warp.h"

namespace sprocket::cuda_simulator {

// f.template operator()<T>() for the T of the type's values: integers (.bXX are unsigned), float,
// double, Half, Bfloat, and pairs of the last two. f returns null for those that it does not take.
template <typename F>
auto with_value_type(Type type, F f) {
  switch (type) {
    case Type::kB8:
    case Type::kU8:
      return f.template operator()<uint8_t>();
    case Type::kS8:
      return f.template operator()<int8_t>();
    case Type::kB16:
    case Type::kU16:
      return f.template operator()<uint16_t>();
    case Type::kS16:
      return f.template operator()<int16_t>();
    case Type::kB32:
    case Type::kU32:
      return f.template operator()<uint32_t>();
    case Type::kS32:
      return f.template operator()<int32_t>();
    case Type::kB64:
    case Type::kU64:
      return f.template operator()<uint64_t>();
    case Type::kS64:
      return f.template operator()<int64_t>();
    case Type::kF32:
      return f.template operator()<float>();
    case Type::kF64:
      return f.template operator()<double>();
    case Type::kF16:
      return f.template operator()<Half>();
    case Type::kBf16:
      return f.template operator()<Bfloat>();
    case Type::kF16x2:
      return f.template operator()<Pair<Half>>();
    case Type::kBf16x2:
      return f.template operator()<Pair<Bfloat>>();
    case Type::kPredicate:
    case Type::kTf32:
    case Type::kB128:
      break;
  }
  unsupported("the simulator does not do this for type {}", type_name(type));
}

// By width; signed or unsigned as the type says, .bXX are unsigned.
template <typename F>
Handler integer_handler(Type type, F f) {
  switch (type_bytes(type)) {
    case 1:
      return is_signed(type) ? f.template operator()<int8_t>() : f.template operator()<uint8_t>();
    case 2:
      return is_signed(type) ? f.template operator()<int16_t>() : f.template operator()<uint16_t>();
    case 4:
      return is_signed(type) ? f.template operator()<int32_t>() : f.template operator()<uint32_t>();
    case 8:
      return is_signed(type) ? f.template operator()<int64_t>() : f.template operator()<uint64_t>();
  }
  unsupported("the simulator has no integers of type {}", type_name(type));
}

// By width alone: 2, 4 or 8 bytes.
template <typename F>
Handler bits_handler(Type type, F f) {
  switch (type_bytes(type)) {
    case 2:
      return f.template operator()<uint16_t>();
    case 4:
      return f.template operator()<uint32_t>();
    case 8:
      return f.template operator()<uint64_t>();
  }
  unsupported("the simulator does not do this for type {}", type_name(type));
}

// d = f(a, …) in every lane; the operands are destination, sources.
template <typename D, typename A, typename F>
Step unary(Warp& warp, const Instruction& in, Lanes lanes, F f) {
  const A* a = warp.values<A>(in.at[1]);
  assign(warp.values<D>(in.at[0]), lanes, [&](int i) { return static_cast<D>(f(a[i])); });
  return Step::kNext;
}

template <typename D, typename A, typename B, typename F>
Step binary(Warp& warp, const Instruction& in, Lanes lanes, F f) {
  const A* a = warp.values<A>(in.at[1]);
  const B* b = warp.values<B>(in.at[2]);
  assign(warp.values<D>(in.at[0]), lanes, [&](int i) { return static_cast<D>(f(a[i], b[i])); });
  return Step::kNext;
}

template <typename D, typename A, typename B, typename C, typename F>
Step ternary(Warp& warp, const Instruction& in, Lanes lanes, F f) {
  const A* a = warp.values<A>(in.at[1]);
  const B* b = warp.values<B>(in.at[2]);
  const C* c = warp.values<C>(in.at[3]);
  assign(warp.values<D>(in.at[0]), lanes,
         [&](int i) { return static_cast<D>(f(a[i], b[i], c[i])); });
  return Step::kNext;
}

// Destination and sources of one type.
inline void place_operands(Decoder& decoder, Type type, size_t sources) {
  decoder.out().at[0] = decoder.destination(0, type);
  for (size_t i = 1; i <= sources; ++i) decoder.out().at[i] = decoder.source(i, type);
}

}  // namespace sprocket::cuda_simulator
