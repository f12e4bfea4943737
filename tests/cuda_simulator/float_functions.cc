// ex2, lg2, rcp, sqrt, rsqrt, sin, cos, tanh, testp, copysign. The approximate ones are computed in
// double and rounded once, which every bound on the hardware's error admits.
#include <cmath>

#include "tests/cuda_simulator/floats.h"
#include "tests/cuda_simulator/typed.h"

namespace sprocket::cuda_simulator {
namespace {

constexpr uint32_t kFlush = 1;

struct Exp2 {
  static double of(double x) { return std::exp2(x); }
};
struct Log2 {
  static double of(double x) { return std::log2(x); }
};
struct Reciprocal {
  static double of(double x) { return 1 / x; }
};
struct SquareRoot {
  static double of(double x) { return std::sqrt(x); }
};
struct ReciprocalRoot {
  static double of(double x) { return 1 / std::sqrt(x); }
};
struct Sine {
  static double of(double x) { return std::sin(x); }
};
struct Cosine {
  static double of(double x) { return std::cos(x); }
};
struct HyperbolicTangent {
  static double of(double x) { return std::tanh(x); }
};

template <typename F>
[[gnu::noinline]] Step on_float(Warp& w, const Instruction& in, Lanes lanes) {
  const float* a = w.values<float>(in.at[1]);
  float* to = w.values<float>(in.at[0]);
  const bool flushes = in.flags & kFlush;
  const Rounding rounding(static_cast<int>(in.immediate));
  for_each_lane(lanes, [&](int i) {
    const volatile double exact = F::of(flushes ? flush(a[i]) : a[i]);
    const float result = static_cast<float>(exact);
    to[i] = flushes ? flush(result) : result;
  });
  return Step::kNext;
}

// rcp.approx.ftz.f64 and rsqrt.approx.ftz.f64 are seeds of iterations: 20 leading bits.
template <typename F>
[[gnu::noinline]] Step on_double(Warp& w, const Instruction& in, Lanes lanes) {
  const double* a = w.values<double>(in.at[1]);
  double* to = w.values<double>(in.at[0]);
  const Rounding rounding(static_cast<int>(in.immediate));
  for_each_lane(lanes, [&](int i) {
    volatile double result = F::of(a[i]);
    if (in.flags & kFlush) {
      result = std::bit_cast<double>(std::bit_cast<uint64_t>(static_cast<double>(result)) &
                                     ~0xffffffffull);
    }
    to[i] = result;
  });
  return Step::kNext;
}

template <typename F, typename H, typename Word>
Step on_short(Warp& w, const Instruction& in, Lanes lanes) {
  const Word* a = w.values<Word>(in.at[1]);
  Word* to = w.values<Word>(in.at[0]);
  for_each_lane(lanes, [&](int i) {
    Word result = 0;
    for (unsigned shift = 0; shift < 8 * sizeof(Word); shift += 16) {
      const float x = to_float(H{static_cast<uint16_t>(a[i] >> shift)});
      result |= static_cast<Word>(Word{from_float<H>(static_cast<float>(F::of(x))).bits} << shift);
    }
    to[i] = result;
  });
  return Step::kNext;
}

template <typename F>
void decode(Decoder& d, Modifiers& m) {
  const Type type = m.type();
  const bool approximate = m.take("approx");
  const std::string_view rounding = m.take_any({"rn", "rz", "rm", "rp"});
  if (approximate == !rounding.empty()) m.fail();
  if (m.take("ftz")) d.out().flags = kFlush;
  d.out().immediate = rounding_mode(rounding);
  place_operands(d, type, 1);
  d.out().handler = with_value_type(type, []<typename T>() -> Handler {
    if constexpr (ShortFloat<T>::kIs) {
      return on_short<F, typename ShortFloat<T>::Element, typename ShortFloat<T>::Word>;
    } else if constexpr (std::is_same_v<T, float>) {
      return on_float<F>;
    } else if constexpr (std::is_same_v<T, double>) {
      return on_double<F>;
    } else {
      return nullptr;
    }
  });
  if (d.out().handler == nullptr) m.fail();
}

void decode_copysign(Decoder& d, Modifiers& m) {
  const Type type = m.type();
  place_operands(d, type, 2);
  // The sign is the first operand's.
  d.out().handler = type == Type::kF32 ? +[](Warp& w, const Instruction& in, Lanes lanes) {
    return binary<float, float, float>(w, in, lanes, [](float a, float b) { return std::copysign(b, a); });
  } : +[](Warp& w, const Instruction& in, Lanes lanes) {
    return binary<double, double, double>(w, in, lanes, [](double a, double b) { return std::copysign(b, a); });
  };
}

enum TestedClass : uint32_t { kFinite, kInfinite, kNumber, kNotANumber, kNormal, kSubnormal };

template <typename T>
Step test_class(Warp& w, const Instruction& in, Lanes lanes) {
  const T* a = w.values<T>(in.at[1]);
  Lanes bits = 0;
  for (int i = 0; i < kWarpSize; ++i) {
    const int c = std::fpclassify(a[i]);
    const bool yes = in.flags == kFinite       ? c != FP_NAN && c != FP_INFINITE
                     : in.flags == kInfinite   ? c == FP_INFINITE
                     : in.flags == kNumber     ? c != FP_NAN
                     : in.flags == kNotANumber ? c == FP_NAN
                     : in.flags == kNormal     ? c == FP_NORMAL
                                               : c == FP_SUBNORMAL;
    bits |= Lanes{yes} << i;
  }
  w.set_predicate(in.at[0], lanes, bits);
  return Step::kNext;
}

void decode_testp(Decoder& d, Modifiers& m) {
  const Type type = m.type();
  const std::string_view c =
      m.take_any({"finite", "infinite", "number", "notanumber", "normal", "subnormal"});
  if (c.empty()) m.fail();
  d.out().flags = c == "finite"       ? kFinite
                  : c == "infinite"   ? kInfinite
                  : c == "number"     ? kNumber
                  : c == "notanumber" ? kNotANumber
                  : c == "normal"     ? kNormal
                                      : kSubnormal;
  d.out().at[0] = d.destination(0, Type::kPredicate);
  d.out().at[1] = d.source(1, type);
  d.out().handler = type == Type::kF32 ? test_class<float> : test_class<double>;
}

}  // namespace

std::vector<DecodeEntry> function_instructions() {
  return {{"ex2", decode<Exp2>},
          {"lg2", decode<Log2>},
          {"rcp", decode<Reciprocal>},
          {"sqrt", decode<SquareRoot>},
          {"rsqrt", decode<ReciprocalRoot>},
          {"sin", decode<Sine>},
          {"cos", decode<Cosine>},
          {"tanh", decode<HyperbolicTangent>},
          {"copysign", decode_copysign},
          {"testp", decode_testp}};
}

}  // namespace sprocket::cuda_simulator
