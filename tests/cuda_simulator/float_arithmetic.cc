// add, sub, mul, fma, div, min, max, abs, neg of every float format. Packed formats go by halves.
#include <cmath>

#include "tests/cuda_simulator/families.h"
#include "tests/cuda_simulator/floats.h"
#include "tests/cuda_simulator/typed.h"

namespace sprocket::cuda_simulator {
namespace {

// Bits of an instruction's flags; the rounding mode is in `immediate`.
constexpr uint32_t kFlush = 1, kSaturate = 2, kNanWins = 4, kRelu = 8;

struct Add {
  template <typename T>
  static T of(T a, T b, T, uint32_t) {
    return a + b;
  }
};
struct Subtract {
  template <typename T>
  static T of(T a, T b, T, uint32_t) {
    return a - b;
  }
};
struct Multiply {
  template <typename T>
  static T of(T a, T b, T, uint32_t) {
    return a * b;
  }
};
struct Divide {
  template <typename T>
  static T of(T a, T b, T, uint32_t) {
    return a / b;
  }
};
struct Fma {
  template <typename T>
  static T of(T a, T b, T c, uint32_t) {
    return std::fma(a, b, c);
  }
};
template <typename T>
T canonical_nan() {
  return sizeof(T) == 4 ? std::bit_cast<float>(kNan32) : std::numeric_limits<T>::quiet_NaN();
}
struct Minimum {
  template <typename T>
  static T of(T a, T b, T, uint32_t flags) {
    if (a != a || b != b)
      return (flags & kNanWins) || (a != a && b != b) ? canonical_nan<T>() : a != a ? b : a;
    if (a == b) return std::signbit(a) ? a : b;
    return a < b ? a : b;
  }
};
struct Maximum {
  template <typename T>
  static T of(T a, T b, T, uint32_t flags) {
    if (a != a || b != b)
      return (flags & kNanWins) || (a != a && b != b) ? canonical_nan<T>() : a != a ? b : a;
    if (a == b) return std::signbit(a) ? b : a;
    return a > b ? a : b;
  }
};
struct Negate {
  template <typename T>
  static T of(T a, T, T, uint32_t) {
    return -a;
  }
};
struct Absolute {
  template <typename T>
  static T of(T a, T, T, uint32_t) {
    return std::fabs(a);
  }
};

// f32 and f64, to nearest, without modifiers.
template <typename T, typename Op, int kSources>
Step plain(Warp& w, const Instruction& in, Lanes lanes) {
  const T* a = w.values<T>(in.at[1]);
  const T* b = kSources > 1 ? w.values<T>(in.at[2]) : a;
  const T* c = kSources > 2 ? w.values<T>(in.at[3]) : a;
  const uint32_t flags = in.flags;
  assign(w.values<T>(in.at[0]), lanes, [&](int i) { return Op::of(a[i], b[i], c[i], flags); });
  return Step::kNext;
}

template <typename T, typename Op, int kSources>
[[gnu::noinline]] Step with_modifiers(Warp& w, const Instruction& in, Lanes lanes) {
  const Rounding rounding(static_cast<int>(in.immediate));
  const volatile T* a = w.values<T>(in.at[1]);
  const volatile T* b = kSources > 1 ? w.values<T>(in.at[2]) : a;
  const volatile T* c = kSources > 2 ? w.values<T>(in.at[3]) : a;
  T* to = w.values<T>(in.at[0]);
  for_each_lane(lanes, [&](int i) {
    T x = a[i], y = b[i], z = c[i];
    if (in.flags & kFlush) x = flush(x), y = flush(y), z = flush(z);
    volatile T result = Op::of(x, y, z, in.flags);
    if (in.flags & kFlush) result = flush(static_cast<T>(result));
    if (in.flags & kSaturate) result = saturate_to_one(static_cast<T>(result));
    to[i] = result;
  });
  return Step::kNext;
}

// One 16-bit result. float holds enough digits that sum, difference and product rounded twice are
// rounded once; for fma the sum is rounded to odd first.
template <typename H, typename Op>
uint16_t short_result(uint16_t a, uint16_t b, uint16_t c, uint32_t flags) {
  const float x = to_float(H{a}), y = to_float(H{b}), z = to_float(H{c});
  float result;
  if constexpr (std::is_same_v<Op, Fma>) {
    result = to_float_odd(add_to_odd(double{x} * double{y}, double{z}));
  } else if constexpr (std::is_same_v<Op, Negate>) {
    return a ^ 0x8000;
  } else if constexpr (std::is_same_v<Op, Absolute>) {
    return a & 0x7fff;
  } else {
    result = Op::of(x, y, z, flags);
  }
  if (flags & kSaturate) result = saturate_to_one(result);
  if ((flags & kRelu) && result < 0) result = 0;
  return from_float<H>(result).bits;
}

template <typename H, typename Op, int kSources, typename Word>
Step short_floats(Warp& w, const Instruction& in, Lanes lanes) {
  const Word* a = w.values<Word>(in.at[1]);
  const Word* b = kSources > 1 ? w.values<Word>(in.at[2]) : a;
  const Word* c = kSources > 2 ? w.values<Word>(in.at[3]) : a;
  assign(w.values<Word>(in.at[0]), lanes, [&](int i) {
    Word result = 0;
    for (unsigned shift = 0; shift < 8 * sizeof(Word); shift += 16) {
      result |= static_cast<Word>(
          Word{short_result<H, Op>(static_cast<uint16_t>(a[i] >> shift),
                                   static_cast<uint16_t>(b[i] >> shift),
                                   static_cast<uint16_t>(c[i] >> shift), in.flags)}
          << shift);
    }
    return result;
  });
  return Step::kNext;
}

template <typename Op, int kSources>
Handler handler(Type type, bool modified) {
  return with_value_type(type, [modified]<typename T>() -> Handler {
    if constexpr (ShortFloat<T>::kIs) {
      return short_floats<typename ShortFloat<T>::Element, Op, kSources,
                          typename ShortFloat<T>::Word>;
    } else if constexpr (std::is_floating_point_v<T>) {
      return modified ? with_modifiers<T, Op, kSources> : plain<T, Op, kSources>;
    } else {
      return nullptr;
    }
  });
}

void decode_fma(Decoder& d, Modifiers& m) { decode_float_arithmetic(d, m, m.type()); }

}  // namespace

void decode_float_arithmetic(Decoder& d, Modifiers& m, Type type) {
  const std::string_view root = m.root();
  uint32_t flags = 0;
  if (m.take("ftz")) flags |= kFlush;
  if (m.take("sat")) flags |= kSaturate;
  if (m.take("NaN")) flags |= kNanWins;
  if (m.take("relu")) flags |= kRelu;
  const std::string_view rounding = m.take_any({"rn", "rz", "rm", "rp"});
  if (type_bytes(type) == 2 || type == Type::kF16x2 || type == Type::kBf16x2) {
    if (!rounding.empty() && rounding != "rn") m.fail();
    if (flags & kFlush) m.fail();
  }
  if (root == "div") m.take_any({"approx", "full"});
  const bool ternary = root == "fma" || root == "mad";
  const bool unary = root == "abs" || root == "neg";
  place_operands(d, type, ternary ? 3 : unary ? 1 : 2);
  d.out().flags = flags;
  d.out().immediate = rounding_mode(rounding);
  const bool modified = (flags & (kFlush | kSaturate)) != 0 || d.out().immediate != FE_TONEAREST;
  d.out().handler = root == "add"   ? handler<Add, 2>(type, modified)
                    : root == "sub" ? handler<Subtract, 2>(type, modified)
                    : root == "mul" ? handler<Multiply, 2>(type, modified)
                    : root == "div" ? handler<Divide, 2>(type, modified)
                    : root == "min" ? handler<Minimum, 2>(type, modified)
                    : root == "max" ? handler<Maximum, 2>(type, modified)
                    : root == "abs" ? handler<Absolute, 1>(type, modified)
                    : root == "neg" ? handler<Negate, 1>(type, modified)
                    : ternary       ? handler<Fma, 3>(type, modified)
                                    : nullptr;
  if (d.out().handler == nullptr) m.fail();
}

std::vector<DecodeEntry> arithmetic_instructions() { return {{"fma", decode_fma}}; }

}  // namespace sprocket::cuda_simulator
