// cvt between integers and floats.
#include <cmath>
#include <limits>

#include "tests/cuda_simulator/floats.h"
#include "tests/cuda_simulator/typed.h"

namespace sprocket::cuda_simulator {
namespace {

constexpr uint32_t kFlush = 1, kSaturate = 2, kRelu = 4, kSatFinite = 8;

template <typename D, typename S>
D clamp_to(S value) {
  if constexpr (std::is_floating_point_v<S>) {
    if (value != value) return 0;
    // The limits as floats: the upper one may round up, and is then itself out of range.
    constexpr S kLow = static_cast<S>(std::numeric_limits<D>::min());
    constexpr S kHigh = static_cast<S>(std::numeric_limits<D>::max());
    if (value <= kLow) return std::numeric_limits<D>::min();
    if (value >= kHigh) return std::numeric_limits<D>::max();
    return static_cast<D>(value);
  } else {
    using Wide = __int128;
    const Wide v = value, low = std::numeric_limits<D>::min(), high = std::numeric_limits<D>::max();
    return static_cast<D>(v < low ? low : v > high ? high : v);
  }
}

template <typename D, typename S>
Step integer_to_integer(Warp& w, const Instruction& in, Lanes lanes) {
  if (in.flags & kSaturate) return unary<D, S>(w, in, lanes, clamp_to<D, S>);
  return unary<D, S>(w, in, lanes, [](S a) { return static_cast<D>(a); });
}

template <typename D, typename S>
[[gnu::noinline]] Step integer_to_float(Warp& w, const Instruction& in, Lanes lanes) {
  const Rounding rounding(static_cast<int>(in.immediate));
  const volatile S* a = w.values<S>(in.at[1]);
  D* to = w.values<D>(in.at[0]);
  for_each_lane(lanes, [&](int i) {
    if constexpr (sizeof(D) >= 4) {
      volatile D result = static_cast<D>(a[i]);
      to[i] = result;
    } else {
      // Exact in double up to 2^53; both formats overflow far below.
      to[i] = from_float<D>(to_float_odd(static_cast<double>(a[i])));
    }
  });
  return Step::kNext;
}

template <typename T>
T load_float(T value) {
  return value;
}
inline float load_float(Half value) { return to_float(value); }
inline float load_float(Bfloat value) { return to_float(value); }

template <typename D, typename S>
[[gnu::noinline]] Step float_to_integer(Warp& w, const Instruction& in, Lanes lanes) {
  const Rounding rounding(static_cast<int>(in.immediate));
  const S* a = w.values<S>(in.at[1]);
  D* to = w.values<D>(in.at[0]);
  for_each_lane(lanes, [&](int i) {
    auto value = load_float(a[i]);
    if (in.flags & kFlush) value = flush(value);
    volatile auto whole = std::nearbyint(value);
    to[i] = clamp_to<D>(static_cast<decltype(value)>(whole));
  });
  return Step::kNext;
}

// The mode of cvt.rni and its like rounds to an integer: flags bit 16.
constexpr uint32_t kToInteger = 1 << 16;

template <typename D>
D store_float(double value, uint32_t flags, int mode);
template <>
double store_float<double>(double value, uint32_t, int) {
  return value;
}
template <>
float store_float<float>(double value, uint32_t flags, int) {
  const volatile double exact = value;
  const float result = static_cast<float>(exact);
  return flags & kFlush ? flush(result) : result;
}
template <>
Half store_float<Half>(double value, uint32_t flags, int mode) {
  const uint16_t largest = 0x7bff;
  if (mode == FE_TOWARDZERO && std::isfinite(value)) {
    // To nearest, and back one if that was away from zero.
    Half h{half_bits(value)};
    if (std::fabs(to_float(h)) > std::fabs(value)) --h.bits;
    return h;
  }
  Half h{half_bits(value)};
  if ((flags & kSatFinite) && (h.bits & 0x7fff) == 0x7c00) h.bits = (h.bits & 0x8000) | largest;
  return h;
}
template <>
Bfloat store_float<Bfloat>(double value, uint32_t flags, int mode) {
  if (mode == FE_TOWARDZERO && std::isfinite(value)) {
    return {static_cast<uint16_t>(std::bit_cast<uint32_t>(to_float_odd(value)) >> 16)};
  }
  Bfloat b{bfloat_bits(to_float_odd(value))};
  if ((flags & kSatFinite) && (b.bits & 0x7fff) == 0x7f80) b.bits = (b.bits & 0x8000) | 0x7f7f;
  return b;
}

double prepare(double value, const Instruction& in, bool from_float32) {
  if (from_float32 && (in.flags & kFlush)) value = flush(static_cast<float>(value));
  if (in.flags & kToInteger) value = std::nearbyint(value);
  if (in.flags & kSaturate) value = saturate_to_one(value);
  if ((in.flags & kRelu) && value < 0) value = 0;
  return value;
}

template <typename D, typename S>
[[gnu::noinline]] Step float_to_float(Warp& w, const Instruction& in, Lanes lanes) {
  const int mode = static_cast<int>(in.immediate);
  // 16-bit results are rounded by store_float itself.
  const Rounding rounding(sizeof(D) == 2 && !(in.flags & kToInteger) ? FE_TONEAREST : mode);
  const S* a = w.values<S>(in.at[1]);
  D* to = w.values<D>(in.at[0]);
  for_each_lane(lanes, [&](int i) {
    to[i] = store_float<D>(prepare(load_float(a[i]), in, sizeof(S) == 4), in.flags, mode);
  });
  return Step::kNext;
}

// Two floats into one register: the first source is the upper half.
template <typename H>
Step pack_floats(Warp& w, const Instruction& in, Lanes lanes) {
  const float* a = w.values<float>(in.at[1]);
  const float* b = w.values<float>(in.at[2]);
  uint32_t* to = w.values<uint32_t>(in.at[0]);
  const int mode = static_cast<int>(in.immediate);
  if (in.flags == 0 && mode == FE_TONEAREST) {
    assign(to, lanes, [&](int i) {
      return uint32_t{from_float<H>(a[i]).bits} << 16 | from_float<H>(b[i]).bits;
    });
    return Step::kNext;
  }
  for_each_lane(lanes, [&](int i) {
    to[i] = uint32_t{store_float<H>(prepare(a[i], in, true), in.flags, mode).bits} << 16 |
            store_float<H>(prepare(b[i], in, true), in.flags, mode).bits;
  });
  return Step::kNext;
}

// To 10 bits of mantissa: .rna ties away from zero, .rn to even.
Step to_tf32(Warp& w, const Instruction& in, Lanes lanes) {
  return unary<uint32_t, uint32_t>(w, in, lanes, [&in](uint32_t a) {
    if ((a & 0x7fffffff) > 0x7f800000) return kNan32;
    if ((a & 0x7fffffff) == 0x7f800000) return a;
    const uint32_t half = in.immediate ? 0x1000 : 0xfff + (a >> 13 & 1);
    return (a + half) & ~0x1fffu;
  });
}

Handler conversion(Type to, Type from) {
  const Handler found = with_value_type(to, [from]<typename D>() {
    return with_value_type(from, []<typename S>() -> Handler {
      if constexpr (ShortFloat<D>::kPair || ShortFloat<S>::kPair) {
        return nullptr;
      } else if constexpr (std::is_integral_v<D> && std::is_integral_v<S>) {
        return integer_to_integer<D, S>;
      } else if constexpr (std::is_integral_v<D>) {
        return float_to_integer<D, S>;
      } else if constexpr (std::is_integral_v<S>) {
        return integer_to_float<D, S>;
      } else {
        return float_to_float<D, S>;
      }
    });
  });
  if (found == nullptr) unsupported("conversions from {} to {}", type_name(from), type_name(to));
  return found;
}

uint32_t rounding_flags(Decoder& d, Modifiers& m, bool to_integer_type) {
  uint32_t flags = 0;
  if (m.take("ftz")) flags |= kFlush;
  if (m.take("sat")) flags |= kSaturate;
  if (m.take("relu")) flags |= kRelu;
  if (m.take("satfinite")) flags |= kSatFinite;
  const std::string_view whole = m.take_any({"rni", "rzi", "rmi", "rpi"});
  const std::string_view mode = m.take_any({"rn", "rz", "rm", "rp"});
  d.out().immediate = rounding_mode(whole.empty() ? mode : whole.substr(0, 2));
  if (!whole.empty() && !to_integer_type) flags |= kToInteger;
  return flags;
}

void decode_cvt(Decoder& d, Modifiers& m) {
  if (m.take("pack")) m.fail();
  const Type to = m.type();
  const bool nearest_away = m.take("rna");
  Type from = m.type();
  if (to == Type::kF16x2 || to == Type::kBf16x2) {
    if (from != Type::kF32) m.fail();
    d.out().flags = rounding_flags(d, m, false);
    d.out().at[0] = d.destination(0, to);
    d.out().at[1] = d.source(1, from);
    d.out().at[2] = d.source(2, from);
    d.out().handler = to == Type::kF16x2 ? pack_floats<Half> : pack_floats<Bfloat>;
    return;
  }
  if (to == Type::kTf32) {
    if (!nearest_away && !m.take("rn")) m.fail();
    d.out().immediate = nearest_away;
    d.out().at[0] = d.destination(0, Type::kB32);
    d.out().at[1] = d.source(1, Type::kF32);
    d.out().handler = to_tf32;
    return;
  }
  if (nearest_away) m.fail();
  d.out().flags = rounding_flags(d, m, !is_float(to));
  // Registers wider than the types: the extra bits of a source do not count, those of a result are
  // its sign's or zero.
  unsigned to_bytes = type_bytes(to), from_bytes = type_bytes(from);
  if (d.operand(0).kind == Operand::Kind::kRegister) d.any_register(d.operand(0), to_bytes);
  if (d.operand(1).kind == Operand::Kind::kRegister) d.any_register(d.operand(1), from_bytes);
  const auto register_type = [](unsigned bytes, bool has_sign) {
    return bytes == 2   ? (has_sign ? Type::kS16 : Type::kU16)
           : bytes == 4 ? (has_sign ? Type::kS32 : Type::kU32)
                        : (has_sign ? Type::kS64 : Type::kU64);
  };
  const bool wide_source = from_bytes != type_bytes(from), wide_result = to_bytes != type_bytes(to);
  if ((wide_source && is_float(from)) || (wide_result && is_float(to))) m.fail();
  d.out().at[0] =
      wide_result ? d.destination(0, register_type(to_bytes, is_signed(to))) : d.destination(0, to);
  d.out().at[1] =
      wide_source ? d.source(1, register_type(from_bytes, is_signed(from))) : d.source(1, from);
  const Instruction whole = d.out();
  if (wide_source) {
    d.out().flags = 0;
    d.out().at[0] = d.temporary(type_bytes(from));
    d.out().handler = conversion(from, register_type(from_bytes, is_signed(from)));
    d.emit();
    d.out() = whole;
    d.out().at[1] = d.last_emitted().at[0];
  }
  d.out().handler = conversion(to, from);
  if (wide_result) {
    d.out().at[0] = d.temporary(type_bytes(to));
    d.emit();
    d.out() = whole;
    d.out().flags = 0;
    d.out().at[1] = d.last_emitted().at[0];
    d.out().handler = conversion(register_type(to_bytes, is_signed(to)), to);
  }
}

}  // namespace

std::vector<DecodeEntry> convert_instructions() { return {{"cvt", decode_cvt}}; }

}  // namespace sprocket::cuda_simulator
