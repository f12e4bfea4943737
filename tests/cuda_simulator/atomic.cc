// atom and red: lanes one after the other, in ascending order.
#include <cstring>

#include "tests/cuda_simulator/access.h"
#include "tests/cuda_simulator/floats.h"
#include "tests/cuda_simulator/typed.h"

namespace sprocket::cuda_simulator {
namespace {

enum class Update : uint32_t {
  kAdd,
  kAnd,
  kOr,
  kXor,
  kMin,
  kMax,
  kExchange,
  kCompareSwap,
  kIncrement,
  kDecrement
};

// flags: space | narrow base << 8 | returns the old value << 9.
template <typename T>
T updated(Update update, T old, T b, T c) {
  switch (update) {
    case Update::kAdd:
      if constexpr (std::is_integral_v<T>)
        return static_cast<T>(std::make_unsigned_t<T>(old) + std::make_unsigned_t<T>(b));
      else
        return old + b;
    case Update::kAnd:
      if constexpr (std::is_integral_v<T>) return old & b;
      break;
    case Update::kOr:
      if constexpr (std::is_integral_v<T>) return old | b;
      break;
    case Update::kXor:
      if constexpr (std::is_integral_v<T>) return old ^ b;
      break;
    case Update::kMin:
      return b < old ? b : old;
    case Update::kMax:
      return old < b ? b : old;
    case Update::kExchange:
      return b;
    case Update::kCompareSwap:
      return old == b ? c : old;
    case Update::kIncrement:
      return old >= b ? T{0} : static_cast<T>(old + 1);
    case Update::kDecrement:
      return old == 0 || old > b ? b : static_cast<T>(old - 1);
  }
  throw DeviceError(Fault::kUnsupported, "no such atomic update of floats");
}

template <typename H>
uint32_t add_pairs(uint32_t a, uint32_t b) {
  uint32_t result = 0;
  for (int shift = 0; shift < 32; shift += 16) {
    const float sum = to_float(H{static_cast<uint16_t>(a >> shift)}) +
                      to_float(H{static_cast<uint16_t>(b >> shift)});
    result |= uint32_t{from_float<H>(sum).bits} << shift;
  }
  return result;
}

template <typename T, typename F>
Step update_memory(Warp& w, const Instruction& in, Lanes lanes, F f) {
  const AddressOperand address{in.at[1], (in.flags >> 8 & 1) != 0, in.immediate};
  const Space space = static_cast<Space>(in.flags & 0xff);
  const T* b = w.values<T>(in.at[2]);
  const T* c = in.at[3] == kNowhere ? b : w.values<T>(in.at[3]);
  T* to = (in.flags >> 9 & 1) ? w.values<T>(in.at[0]) : nullptr;
  w.cta().grid().event();
  for_each_lane(lanes, [&](int i) {
    std::byte* at = locate(w, space, i, address.of(w, i), sizeof(T), sizeof(T));
    T old;
    std::memcpy(&old, at, sizeof(T));
    const T value = f(old, b[i], c[i]);
    std::memcpy(at, &value, sizeof(T));
    if (to != nullptr) to[i] = old;
  });
  return Step::kNext;
}

template <typename T>
Step atomic(Warp& w, const Instruction& in, Lanes lanes) {
  const Update update = static_cast<Update>(in.flags >> 16);
  return update_memory<T>(w, in, lanes,
                          [update](T old, T b, T c) { return updated(update, old, b, c); });
}

template <typename H>
Step atomic_pairs(Warp& w, const Instruction& in, Lanes lanes) {
  return update_memory<uint32_t>(
      w, in, lanes, [](uint32_t a, uint32_t b, uint32_t) { return add_pairs<H>(a, b); });
}

template <typename H>
Step atomic_short(Warp& w, const Instruction& in, Lanes lanes) {
  return update_memory<uint16_t>(w, in, lanes, [](uint16_t a, uint16_t b, uint16_t) {
    return from_float<H>(to_float(H{a}) + to_float(H{b})).bits;
  });
}

Handler atomic_handler(Type type) {
  return with_value_type(type, []<typename T>() -> Handler {
    if constexpr (!ShortFloat<T>::kIs) {
      return atomic<T>;
    } else if constexpr (ShortFloat<T>::kPair) {
      return atomic_pairs<typename ShortFloat<T>::Element>;
    } else {
      return atomic_short<T>;
    }
  });
}

void decode_atomic(Decoder& d, Modifiers& m) {
  const bool returns = m.root() == "atom";
  Space space = space_named(m);
  m.take_any({"relaxed", "acquire", "release", "acq_rel"});
  m.take_any({"cta", "cluster", "gpu", "sys"});
  m.take("noftz");
  m.take("L2::cache_hint");
  struct Named {
    std::string_view name;
    Update update;
  };
  constexpr Named kNames[] = {{"add", Update::kAdd},       {"and", Update::kAnd},
                              {"or", Update::kOr},         {"xor", Update::kXor},
                              {"min", Update::kMin},       {"max", Update::kMax},
                              {"exch", Update::kExchange}, {"cas", Update::kCompareSwap},
                              {"inc", Update::kIncrement}, {"dec", Update::kDecrement}};
  const Named* found = nullptr;
  for (const Named& n : kNames) {
    if (found == nullptr && m.take(n.name)) found = &n;
  }
  if (found == nullptr) m.fail();
  const Type type = m.type();
  if (is_float(type) && found->update != Update::kAdd) m.fail();
  const size_t first = returns ? 1 : 0;
  unsigned bytes;
  const Operand& address = d.operand(first);
  if (space == Space::kGeneric && !address.items.empty() &&
      address.items.front().kind == Operand::Kind::kVariable) {
    space = d.variable_space(address.items.front().name);
  }
  d.out().at[1] = d.address(address, bytes);
  d.out().flags = static_cast<uint32_t>(space) | (bytes == 4 ? 1u << 8 : 0) |
                  (returns ? 1u << 9 : 0) | static_cast<uint32_t>(found->update) << 16;
  if (returns) d.out().at[0] = d.destination(0, type);
  d.out().at[2] = d.source(first + 1, type);
  if (found->update == Update::kCompareSwap) d.out().at[3] = d.source(first + 2, type);
  d.out().handler = atomic_handler(type);
}

}  // namespace

std::vector<DecodeEntry> atomic_instructions() {
  return {{"atom", decode_atomic}, {"red", decode_atomic}};
}

}  // namespace sprocket::cuda_simulator
