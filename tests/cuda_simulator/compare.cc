// setp, set, selp, slct.
#include <cmath>

#include "tests/cuda_simulator/floats.h"
#include "tests/cuda_simulator/typed.h"

namespace sprocket::cuda_simulator {
namespace {

enum class Relation : uint32_t {
  kEq,
  kNe,
  kLt,
  kLe,
  kGt,
  kGe,
  kEqu,
  kNeu,
  kLtu,
  kLeu,
  kGtu,
  kGeu,
  kNum,
  kNan
};
enum class Combine : uint32_t { kNone, kAnd, kOr, kXor };

// flags: relation | combine << 8 | flush << 16; immediate: the flip of the combined predicate.
Relation relation(const Instruction& in) { return static_cast<Relation>(in.flags & 0xff); }
bool flushes(const Instruction& in) { return in.flags >> 16 & 1; }

template <typename T, typename F>
Lanes bits_where(const T* a, const T* b, F f) {
  Lanes bits = 0;
  for (int i = 0; i < kWarpSize; ++i) bits |= Lanes{f(a[i], b[i])} << i;
  return bits;
}

template <typename T>
Lanes compare(const T* a, const T* b, Relation r) {
  const auto unordered = [](T x, T y) { return x != x || y != y; };
  switch (r) {
    case Relation::kEq:
      return bits_where(a, b, [](T x, T y) { return x == y; });
    case Relation::kNe:
      return bits_where(a, b, [&](T x, T y) { return x != y && !unordered(x, y); });
    case Relation::kLt:
      return bits_where(a, b, [](T x, T y) { return x < y; });
    case Relation::kLe:
      return bits_where(a, b, [](T x, T y) { return x <= y; });
    case Relation::kGt:
      return bits_where(a, b, [](T x, T y) { return x > y; });
    case Relation::kGe:
      return bits_where(a, b, [](T x, T y) { return x >= y; });
    case Relation::kEqu:
      return bits_where(a, b, [&](T x, T y) { return x == y || unordered(x, y); });
    case Relation::kNeu:
      return bits_where(a, b, [](T x, T y) { return x != y; });
    case Relation::kLtu:
      return bits_where(a, b, [](T x, T y) { return !(x >= y); });
    case Relation::kLeu:
      return bits_where(a, b, [](T x, T y) { return !(x > y); });
    case Relation::kGtu:
      return bits_where(a, b, [](T x, T y) { return !(x <= y); });
    case Relation::kGeu:
      return bits_where(a, b, [](T x, T y) { return !(x < y); });
    case Relation::kNum:
      return bits_where(a, b, [&](T x, T y) { return !unordered(x, y); });
    case Relation::kNan:
      return bits_where(a, b, [&](T x, T y) { return unordered(x, y); });
  }
  return 0;
}

Lanes combined(Warp& w, const Instruction& in, Lanes bits) {
  if ((in.flags >> 8 & 0xff) == 0) return bits;
  const Lanes c = w.predicate(in.at[4]) ^ static_cast<Lanes>(in.immediate);
  switch (static_cast<Combine>(in.flags >> 8 & 0xff)) {
    case Combine::kNone:
      break;
    case Combine::kAnd:
      return bits & c;
    case Combine::kOr:
      return bits | c;
    case Combine::kXor:
      return bits ^ c;
  }
  return bits;
}

// Destinations: at[0], and at[1] for the complement.
template <typename T>
Step set_predicate(Warp& w, const Instruction& in, Lanes lanes) {
  const T* a = w.values<T>(in.at[2]);
  const T* b = w.values<T>(in.at[3]);
  Lanes bits;
  if constexpr (std::is_same_v<T, float>) {
    float x[kWarpSize], y[kWarpSize];
    if (flushes(in)) {
      for (int i = 0; i < kWarpSize; ++i) x[i] = flush(a[i]), y[i] = flush(b[i]);
      a = x, b = y;
    }
    bits = compare(a, b, relation(in));
  } else {
    bits = compare(a, b, relation(in));
  }
  const Lanes both[2] = {combined(w, in, bits), combined(w, in, ~bits)};
  w.set_predicate(in.at[0], lanes, both[0]);
  w.set_predicate(in.at[1], lanes, both[1]);
  return Step::kNext;
}

// at[0] and at[1] are the results of the lower and of the upper half, if packed.
template <typename H, bool kPacked>
Step set_short_predicate(Warp& w, const Instruction& in, Lanes lanes) {
  Lanes bits[2];
  for (int half = 0; half < (kPacked ? 2 : 1); ++half) {
    float x[kWarpSize], y[kWarpSize];
    for (int i = 0; i < kWarpSize; ++i) {
      if constexpr (kPacked) {
        x[i] = to_float(H{static_cast<uint16_t>(w.values<uint32_t>(in.at[2])[i] >> (16 * half))});
        y[i] = to_float(H{static_cast<uint16_t>(w.values<uint32_t>(in.at[3])[i] >> (16 * half))});
      } else {
        x[i] = to_float(w.values<H>(in.at[2])[i]);
        y[i] = to_float(w.values<H>(in.at[3])[i]);
      }
    }
    bits[half] = compare(x, y, relation(in));
  }
  if (!kPacked) bits[1] = ~bits[0];
  const Lanes first = combined(w, in, bits[0]), second = combined(w, in, bits[1]);
  w.set_predicate(in.at[0], lanes, first);
  w.set_predicate(in.at[1], lanes, second);
  return Step::kNext;
}

uint32_t relation_flags(Modifiers& m) {
  struct Named {
    std::string_view name;
    Relation relation;
  };
  constexpr Named kNames[] = {
      {"eq", Relation::kEq},   {"ne", Relation::kNe},   {"lt", Relation::kLt},
      {"le", Relation::kLe},   {"gt", Relation::kGt},   {"ge", Relation::kGe},
      {"lo", Relation::kLt},   {"ls", Relation::kLe},   {"hi", Relation::kGt},
      {"hs", Relation::kGe},   {"equ", Relation::kEqu}, {"neu", Relation::kNeu},
      {"ltu", Relation::kLtu}, {"leu", Relation::kLeu}, {"gtu", Relation::kGtu},
      {"geu", Relation::kGeu}, {"num", Relation::kNum}, {"nan", Relation::kNan}};
  for (const Named& n : kNames) {
    if (!m.take(n.name)) continue;
    uint32_t flags = static_cast<uint32_t>(n.relation);
    if (m.take("ftz")) flags |= 1u << 16;
    if (m.take("and")) flags |= static_cast<uint32_t>(Combine::kAnd) << 8;
    if (m.take("or")) flags |= static_cast<uint32_t>(Combine::kOr) << 8;
    if (m.take("xor")) flags |= static_cast<uint32_t>(Combine::kXor) << 8;
    return flags;
  }
  m.fail();
}

Handler compare_handler(Type type) {
  return with_value_type(type, []<typename T>() -> Handler {
    if constexpr (ShortFloat<T>::kIs) {
      return set_short_predicate<typename ShortFloat<T>::Element, ShortFloat<T>::kPair>;
    } else {
      return set_predicate<T>;
    }
  });
}

void decode_setp(Decoder& d, Modifiers& m) {
  d.out().flags = relation_flags(m);
  const Type type = m.type();
  d.out().at[0] = d.destination(0, Type::kPredicate);
  d.out().at[1] = d.paired_predicate(d.operand(0));
  d.out().at[2] = d.source(1, type);
  d.out().at[3] = d.source(2, type);
  if (d.out().flags >> 8 & 0xff) {
    Lanes flip;
    d.out().at[4] = d.predicate(d.operand(3), flip);
    d.out().immediate = flip;
  }
  d.out().handler = compare_handler(type);
}

// set.cmp.dtype.stype: all ones or 1.0 where the relation holds. Of f16x2 alone the halves differ.
template <typename T, bool kFloatResult>
Step set_value(Warp& w, const Instruction& in, Lanes lanes) {
  const Lanes bits =
      combined(w, in, compare(w.values<T>(in.at[2]), w.values<T>(in.at[3]), relation(in)));
  const uint32_t yes = kFloatResult ? std::bit_cast<uint32_t>(1.0f) : ~0u;
  assign(w.values<uint32_t>(in.at[0]), lanes, [&](int i) { return bits >> i & 1 ? yes : 0; });
  return Step::kNext;
}

template <typename H>
Step set_packed(Warp& w, const Instruction& in, Lanes lanes) {
  const uint32_t* a = w.values<uint32_t>(in.at[2]);
  const uint32_t* b = w.values<uint32_t>(in.at[3]);
  const uint16_t yes = static_cast<uint16_t>(in.immediate);
  uint32_t result[kWarpSize] = {};
  for (int shift = 0; shift < 32; shift += 16) {
    float x[kWarpSize], y[kWarpSize];
    for (int i = 0; i < kWarpSize; ++i) {
      x[i] = to_float(H{static_cast<uint16_t>(a[i] >> shift)});
      y[i] = to_float(H{static_cast<uint16_t>(b[i] >> shift)});
    }
    const Lanes bits = compare(x, y, relation(in));
    for (int i = 0; i < kWarpSize; ++i) result[i] |= (bits >> i & 1 ? uint32_t{yes} : 0) << shift;
  }
  assign(w.values<uint32_t>(in.at[0]), lanes, [&](int i) { return result[i]; });
  return Step::kNext;
}

void decode_set(Decoder& d, Modifiers& m) {
  d.out().flags = relation_flags(m);
  const Type to = m.type(), type = m.type();
  if (d.out().flags >> 8) m.fail();
  d.out().at[0] = d.destination(0, to);
  d.out().at[2] = d.source(1, type);
  d.out().at[3] = d.source(2, type);
  if (type == Type::kF16x2 || type == Type::kBf16x2) {
    const bool is_half = type == Type::kF16x2;
    d.out().immediate = !is_float(to) ? 0xffff : is_half ? half_bits(1.0f) : bfloat_bits(1.0f);
    d.out().handler = is_half ? set_packed<Half> : set_packed<Bfloat>;
    return;
  }
  if (type_bytes(to) != 4) m.fail();
  d.out().handler = with_value_type(type, [floats = is_float(to)]<typename T>() -> Handler {
    if constexpr (ShortFloat<T>::kIs) {
      return nullptr;
    } else {
      return floats ? set_value<T, true> : set_value<T, false>;
    }
  });
  if (d.out().handler == nullptr) m.fail();
}

template <typename T>
Step select(Warp& w, const Instruction& in, Lanes lanes) {
  const T* a = w.values<T>(in.at[1]);
  const T* b = w.values<T>(in.at[2]);
  const Lanes p = w.predicate(in.at[3]) ^ in.flags;
  assign(w.values<T>(in.at[0]), lanes, [&](int i) { return p >> i & 1 ? a[i] : b[i]; });
  return Step::kNext;
}

Step select_predicate(Warp& w, const Instruction& in, Lanes lanes) {
  const Lanes p = w.predicate(in.at[3]) ^ in.flags;
  w.set_predicate(in.at[0], lanes, (w.predicate(in.at[1]) & p) | (w.predicate(in.at[2]) & ~p));
  return Step::kNext;
}

void decode_selp(Decoder& d, Modifiers& m) {
  const Type type = m.type();
  place_operands(d, type, 2);
  Lanes flip;
  d.out().at[3] = d.predicate(d.operand(3), flip);
  d.out().flags = flip;
  d.out().handler = type == Type::kPredicate
                        ? select_predicate
                        : bits_handler(type, []<typename T>() -> Handler { return select<T>; });
}

template <typename T, typename C>
Step select_by_sign(Warp& w, const Instruction& in, Lanes lanes) {
  return ternary<T, T, T, C>(w, in, lanes, [](T a, T b, C c) { return c >= 0 ? a : b; });
}

void decode_slct(Decoder& d, Modifiers& m) {
  m.take("ftz");
  const Type type = m.type(), sign = m.type();
  place_operands(d, type, 2);
  d.out().at[3] = d.source(3, sign);
  const bool by_float = sign == Type::kF32;
  d.out().handler = bits_handler(type, [by_float]<typename T>() -> Handler {
    return by_float ? select_by_sign<T, float> : select_by_sign<T, int32_t>;
  });
}

}  // namespace

std::vector<DecodeEntry> compare_instructions() {
  return {{"setp", decode_setp}, {"set", decode_set}, {"selp", decode_selp}, {"slct", decode_slct}};
}

}  // namespace sprocket::cuda_simulator
