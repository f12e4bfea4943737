// Integer arithmetic.
#include <limits>
#include <type_traits>

#include "tests/cuda_simulator/families.h"
#include "tests/cuda_simulator/typed.h"

namespace sprocket::cuda_simulator {
namespace {

template <typename T>
using Unsigned = std::make_unsigned_t<T>;
template <typename T>
using Wide = std::conditional_t<
    sizeof(T) == 2, std::conditional_t<std::is_signed_v<T>, int32_t, uint32_t>,
    std::conditional_t<sizeof(T) == 4, std::conditional_t<std::is_signed_v<T>, int64_t, uint64_t>,
                       std::conditional_t<std::is_signed_v<T>, __int128, unsigned __int128>>>;

template <typename T>
T product_low(T a, T b) {
  return static_cast<T>(static_cast<uint64_t>(a) * static_cast<uint64_t>(b));
}
template <typename T>
T product_high(T a, T b) {
  return static_cast<T>((static_cast<Wide<T>>(a) * static_cast<Wide<T>>(b)) >> (8 * sizeof(T)));
}
template <typename T>
T sum(T a, T b) {
  return static_cast<T>(static_cast<Unsigned<T>>(a) + static_cast<Unsigned<T>>(b));
}
// Division by zero gives all ones, as the hardware does; the remainder is then the dividend.
template <typename T>
T quotient(T a, T b) {
  if (b == 0) return static_cast<T>(~Unsigned<T>{0});
  if (std::is_signed_v<T> && b == static_cast<T>(-1))
    return static_cast<T>(Unsigned<T>{0} - Unsigned<T>(a));
  return static_cast<T>(a / b);
}
template <typename T>
T remainder(T a, T b) {
  if (b == 0) return a;
  if (std::is_signed_v<T> && b == static_cast<T>(-1)) return 0;
  return static_cast<T>(a % b);
}
int32_t saturate(int64_t v) {
  return static_cast<int32_t>(
      std::min<int64_t>(std::max<int64_t>(v, std::numeric_limits<int32_t>::min()),
                        std::numeric_limits<int32_t>::max()));
}

#define SPROCKET_BINARY(EXPRESSION)                                              \
  integer_handler(type, []<typename T>() -> Handler {                            \
    return +[](Warp& w, const Instruction& in, Lanes lanes) {                    \
      return binary<T, T, T>(w, in, lanes, [](T a, T b) { return EXPRESSION; }); \
    };                                                                           \
  })

// The carry of one instruction is the next one's addend: flags bit 0 reads it, bit 1 writes it.
constexpr uint32_t kCarryIn = 1, kCarryOut = 2, kSubtract = 4, kMultiplyHigh = 8, kMultiplyLow = 16;

template <typename T>
Step with_carry(Warp& warp, const Instruction& in, Lanes lanes) {
  using U = Unsigned<T>;
  using W = unsigned __int128;
  const T* a = warp.values<T>(in.at[1]);
  const T* b = warp.values<T>(in.at[2]);
  const T* c = in.at[3] == kNowhere ? nullptr : warp.values<T>(in.at[3]);
  Lanes carry = 0;
  T result[kWarpSize];
  for (int i = 0; i < kWarpSize; ++i) {
    const unsigned incoming = (in.flags & kCarryIn) ? warp.carry >> i & 1 : 0;
    W left = static_cast<U>(a[i]), right = static_cast<U>(b[i]);
    if (in.flags & kMultiplyHigh) left = static_cast<U>(product_high(a[i], b[i]));
    if (in.flags & kMultiplyLow) left = static_cast<U>(product_low(a[i], b[i]));
    if (c != nullptr) right = static_cast<U>(c[i]);
    const W value = (in.flags & kSubtract) ? left - right - incoming : left + right + incoming;
    result[i] = static_cast<T>(value);
    carry |= Lanes{(value >> (8 * sizeof(T)) & 1) != 0} << i;
  }
  assign(warp.values<T>(in.at[0]), lanes, [&](int i) { return result[i]; });
  if (in.flags & kCarryOut) warp.carry = (warp.carry & ~lanes) | (carry & lanes);
  return Step::kNext;
}

void decode_carry(Decoder& d, Modifiers& m, Type type, bool carry_in) {
  const bool carry_out = m.take("cc");
  const bool multiplies = m.root() == "mad" || m.root() == "madc";
  d.out().flags = (carry_in ? kCarryIn : 0) | (carry_out ? kCarryOut : 0) |
                  (m.root().substr(0, 3) == "sub" ? kSubtract : 0);
  if (multiplies)
    d.out().flags |= m.take("hi") ? kMultiplyHigh : m.take("lo") ? kMultiplyLow : (m.fail(), 0);
  place_operands(d, type, multiplies ? 3 : 2);
  d.out().handler = integer_handler(type, []<typename T>() -> Handler {
    if constexpr (sizeof(T) >= 4) {
      return with_carry<T>;
    } else {
      unsupported("carries are of 32 and 64 bits");
    }
  });
}

void decode_with_carry(Decoder& d, Modifiers& m) { decode_carry(d, m, m.type(), true); }

Handler wide_handler(Type type, bool adds) {
  return integer_handler(type, [adds]<typename T>() -> Handler {
    if constexpr (sizeof(T) == 2 || sizeof(T) == 4) {
      using W = Wide<T>;
      if (!adds) {
        return +[](Warp& w, const Instruction& in, Lanes lanes) {
          return binary<W, T, T>(w, in, lanes, [](T a, T b) { return product_low<W>(a, b); });
        };
      }
      return +[](Warp& w, const Instruction& in, Lanes lanes) {
        return ternary<W, T, T, W>(w, in, lanes,
                                   [](T a, T b, W c) { return sum<W>(product_low<W>(a, b), c); });
      };
    } else {
      unsupported("wide products are of 16 and 32 bits");
    }
  });
}

void decode_product(Decoder& d, Modifiers& m, Type type) {
  const bool adds = m.root() == "mad";
  const std::string_view part = m.take_any({"lo", "hi", "wide"});
  if (part.empty()) m.fail();
  if (part == "wide") {
    const Type wide = type_bytes(type) == 2 ? Type::kU32 : Type::kU64;
    d.out().at[0] = d.destination(0, wide);
    d.out().at[1] = d.source(1, type);
    d.out().at[2] = d.source(2, type);
    if (adds) d.out().at[3] = d.source(3, wide);
    d.out().handler = wide_handler(type, adds);
    return;
  }
  place_operands(d, type, adds ? 3 : 2);
  const bool high = part == "hi";
  if (m.take("sat")) {
    if (!adds || !high || type != Type::kS32) m.fail();
    d.out().handler = [](Warp& w, const Instruction& in, Lanes lanes) {
      return ternary<int32_t, int32_t, int32_t, int32_t>(
          w, in, lanes, [](int32_t a, int32_t b, int32_t c) {
            return saturate(int64_t{product_high(a, b)} + c);
          });
    };
    return;
  }
  if (!adds) {
    d.out().handler =
        high ? SPROCKET_BINARY(product_high(a, b)) : SPROCKET_BINARY(product_low(a, b));
    return;
  }
  d.out().handler = integer_handler(type, [high]<typename T>() -> Handler {
    if (high) {
      return +[](Warp& w, const Instruction& in, Lanes lanes) {
        return ternary<T, T, T, T>(w, in, lanes,
                                   [](T a, T b, T c) { return sum(product_high(a, b), c); });
      };
    }
    return +[](Warp& w, const Instruction& in, Lanes lanes) {
      return ternary<T, T, T, T>(w, in, lanes,
                                 [](T a, T b, T c) { return sum(product_low(a, b), c); });
    };
  });
}

// Two 16-bit numbers in 32 bits.
template <typename T, typename F>
uint32_t by_halves(uint32_t a, uint32_t b, F f) {
  const T low = f(static_cast<T>(a), static_cast<T>(b));
  const T high = f(static_cast<T>(a >> 16), static_cast<T>(b >> 16));
  return static_cast<uint16_t>(low) | static_cast<uint32_t>(static_cast<uint16_t>(high)) << 16;
}

template <typename T, typename F>
Step packed(Warp& w, const Instruction& in, Lanes lanes, F f) {
  return binary<uint32_t, uint32_t, uint32_t>(
      w, in, lanes, [f](uint32_t a, uint32_t b) { return by_halves<T>(a, b, f); });
}

void decode_packed(Decoder& d, Modifiers& m) {
  const bool has_sign = m.take("s16x2");
  if (!has_sign && !m.take("u16x2")) m.fail();
  place_operands(d, Type::kB32, 2);
  if (m.root() == "add") {
    d.out().handler = [](Warp& w, const Instruction& in, Lanes l) {
      return packed<uint16_t>(w, in, l,
                              [](uint16_t a, uint16_t b) { return static_cast<uint16_t>(a + b); });
    };
  } else if (m.root() == "min") {
    d.out().handler = has_sign ? +[](Warp& w, const Instruction& in, Lanes l) {
      return packed<int16_t>(w, in, l, [](int16_t a, int16_t b) { return std::min(a, b); });
    } : +[](Warp& w, const Instruction& in, Lanes l) {
      return packed<uint16_t>(w, in, l, [](uint16_t a, uint16_t b) { return std::min(a, b); });
    };
  } else if (m.root() == "max") {
    d.out().handler = has_sign ? +[](Warp& w, const Instruction& in, Lanes l) {
      return packed<int16_t>(w, in, l, [](int16_t a, int16_t b) { return std::max(a, b); });
    } : +[](Warp& w, const Instruction& in, Lanes l) {
      return packed<uint16_t>(w, in, l, [](uint16_t a, uint16_t b) { return std::max(a, b); });
    };
  } else {
    m.fail();
  }
}

void decode_sad(Decoder& d, Modifiers& m) {
  const Type type = m.type();
  place_operands(d, type, 3);
  d.out().handler = integer_handler(type, []<typename T>() -> Handler {
    return +[](Warp& w, const Instruction& in, Lanes lanes) {
      return ternary<T, T, T, T>(w, in, lanes, [](T a, T b, T c) {
        using U = Unsigned<T>;
        const U distance = a < b ? static_cast<U>(U(b) - U(a)) : static_cast<U>(U(a) - U(b));
        return sum(static_cast<T>(distance), c);
      });
    };
  });
}

template <typename A, typename B>
Step dot4(Warp& w, const Instruction& in, Lanes lanes) {
  return ternary<uint32_t, uint32_t, uint32_t, uint32_t>(
      w, in, lanes, [](uint32_t a, uint32_t b, uint32_t c) {
        for (int i = 0; i < 32; i += 8) {
          c += static_cast<uint32_t>(static_cast<A>(a >> i)) *
               static_cast<uint32_t>(static_cast<B>(b >> i));
        }
        return c;
      });
}

void decode_dp4a(Decoder& d, Modifiers& m) {
  const bool a = is_signed(m.type()), b = is_signed(m.type());
  place_operands(d, Type::kB32, 3);
  d.out().handler = a ? (b ? dot4<int8_t, int8_t> : dot4<int8_t, uint8_t>)
                      : (b ? dot4<uint8_t, int8_t> : dot4<uint8_t, uint8_t>);
}

}  // namespace

void decode_integer_arithmetic(Decoder& d, Modifiers& m, Type type) {
  const std::string_view root = m.root();
  if (root == "mul") return decode_product(d, m, type);
  if (root == "mad") {
    Modifiers probe = m;
    if (probe.take("cc")) return decode_carry(d, m, type, false);
    return decode_product(d, m, type);
  }
  if (root == "add" || root == "sub") {
    Modifiers probe = m;
    if (probe.take("cc")) return decode_carry(d, m, type, false);
    place_operands(d, type, 2);
    if (m.take("sat")) {
      if (type != Type::kS32) m.fail();
      d.out().handler = root == "add" ? +[](Warp& w, const Instruction& in, Lanes l) {
        return binary<int32_t, int32_t, int32_t>(
            w, in, l, [](int32_t a, int32_t b) { return saturate(int64_t{a} + b); });
      } : +[](Warp& w, const Instruction& in, Lanes l) {
        return binary<int32_t, int32_t, int32_t>(
            w, in, l, [](int32_t a, int32_t b) { return saturate(int64_t{a} - b); });
      };
    } else if (root == "add") {
      d.out().handler = SPROCKET_BINARY(sum(a, b));
    } else {
      d.out().handler = SPROCKET_BINARY(Unsigned<T>(a) - Unsigned<T>(b));
    }
    return;
  }
  if (root == "abs" || root == "neg") {
    place_operands(d, type, 1);
    const bool absolute = root == "abs";
    d.out().handler = integer_handler(type, [absolute]<typename T>() -> Handler {
      if (absolute) {
        return +[](Warp& w, const Instruction& in, Lanes lanes) {
          return unary<T, T>(w, in, lanes, [](T a) {
            return a < 0 ? Unsigned<T>(0) - Unsigned<T>(a) : Unsigned<T>(a);
          });
        };
      }
      return +[](Warp& w, const Instruction& in, Lanes lanes) {
        return unary<T, T>(w, in, lanes, [](T a) { return Unsigned<T>(0) - Unsigned<T>(a); });
      };
    });
    return;
  }
  place_operands(d, type, 2);
  if (root == "div") d.out().handler = SPROCKET_BINARY(quotient(a, b));
  if (root == "rem") d.out().handler = SPROCKET_BINARY(remainder(a, b));
  if (root == "min") d.out().handler = SPROCKET_BINARY(b < a ? b : a);
  if (root == "max") d.out().handler = SPROCKET_BINARY(a < b ? b : a);
}

std::vector<DecodeEntry> integer_instructions() {
  const Decode routed = [](Decoder& d, Modifiers& m) {
    Modifiers probe = m;
    if (probe.take("s16x2") || probe.take("u16x2")) return decode_packed(d, m);
    const Type type = m.type();
    if (is_float(type)) return decode_float_arithmetic(d, m, type);
    decode_integer_arithmetic(d, m, type);
  };
  return {{"add", routed},
          {"sub", routed},
          {"mul", routed},
          {"mad", routed},
          {"div", routed},
          {"rem", routed},
          {"abs", routed},
          {"neg", routed},
          {"min", routed},
          {"max", routed},
          {"addc", decode_with_carry},
          {"subc", decode_with_carry},
          {"madc", decode_with_carry},
          {"sad", decode_sad},
          {"dp4a", decode_dp4a}};
}

}  // namespace sprocket::cuda_simulator
