// Logic, shifts, bit fields, permutations of bytes.
#include <type_traits>

#include "tests/cuda_simulator/typed.h"

namespace sprocket::cuda_simulator {
namespace {

enum class Logic : uint32_t { kAnd, kOr, kXor };

Step predicate_logic(Warp& w, const Instruction& in, Lanes lanes) {
  const Lanes a = w.predicate(in.at[1]),
              b = w.predicate(in.at[2]) ^ static_cast<Lanes>(in.immediate);
  Lanes result = 0;
  switch (static_cast<Logic>(in.flags)) {
    case Logic::kAnd:
      result = a & b;
      break;
    case Logic::kOr:
      result = a | b;
      break;
    case Logic::kXor:
      result = a ^ b;
      break;
  }
  w.set_predicate(in.at[0], lanes, result);
  return Step::kNext;
}

template <Logic kLogic>
void decode_logic(Decoder& d, Modifiers& m) {
  const Type type = m.type();
  if (type == Type::kPredicate) {
    Lanes flip_a = 0, flip_b = 0;
    d.out().at[0] = d.destination(0, type);
    d.out().at[1] = d.predicate(d.operand(1), flip_a);
    d.out().at[2] = d.predicate(d.operand(2), flip_b);
    if (flip_a) {
      if (flip_b || kLogic == Logic::kXor) m.fail();
      std::swap(d.out().at[1], d.out().at[2]);
      std::swap(flip_a, flip_b);
    }
    d.out().immediate = flip_b;
    d.out().flags = static_cast<uint32_t>(kLogic);
    d.out().handler = predicate_logic;
    return;
  }
  place_operands(d, type, 2);
  d.out().handler = bits_handler(type, []<typename T>() -> Handler {
    return +[](Warp& w, const Instruction& in, Lanes lanes) {
      return binary<T, T, T>(w, in, lanes, [](T a, T b) {
        return kLogic == Logic::kAnd ? a & b : kLogic == Logic::kOr ? a | b : a ^ b;
      });
    };
  });
}

Step predicate_not(Warp& w, const Instruction& in, Lanes lanes) {
  w.set_predicate(in.at[0], lanes, ~w.predicate(in.at[1]));
  return Step::kNext;
}

void decode_not(Decoder& d, Modifiers& m) {
  const Type type = m.type();
  place_operands(d, type, 1);
  d.out().handler =
      type == Type::kPredicate ? predicate_not : bits_handler(type, []<typename T>() -> Handler {
        return +[](Warp& w, const Instruction& in, Lanes lanes) {
          return unary<T, T>(w, in, lanes, [](T a) { return ~a; });
        };
      });
}

void decode_cnot(Decoder& d, Modifiers& m) {
  const Type type = m.type();
  place_operands(d, type, 1);
  d.out().handler = bits_handler(type, []<typename T>() -> Handler {
    return +[](Warp& w, const Instruction& in, Lanes lanes) {
      return unary<T, T>(w, in, lanes, [](T a) { return a == 0; });
    };
  });
}

// Shifts by the width or more give zero, or the sign.
template <bool kLeft>
void decode_shift(Decoder& d, Modifiers& m) {
  const Type type = m.type();
  d.out().at[0] = d.destination(0, type);
  d.out().at[1] = d.source(1, type);
  d.out().at[2] = d.source(2, Type::kU32);
  d.out().handler = integer_handler(type, []<typename T>() -> Handler {
    return +[](Warp& w, const Instruction& in, Lanes lanes) {
      return binary<T, T, uint32_t>(w, in, lanes, [](T a, uint32_t n) -> T {
        constexpr uint32_t kWidth = 8 * sizeof(T);
        using U = std::make_unsigned_t<T>;
        if constexpr (kLeft) {
          return n >= kWidth ? T{0} : static_cast<T>(static_cast<U>(a) << n);
        } else {
          if (n >= kWidth) return a < 0 ? static_cast<T>(~U{0}) : T{0};
          return static_cast<T>(a >> n);
        }
      });
    };
  });
}

template <bool kLeft, bool kClamp>
Step funnel(Warp& w, const Instruction& in, Lanes lanes) {
  return ternary<uint32_t, uint32_t, uint32_t, uint32_t>(
      w, in, lanes, [](uint32_t low, uint32_t high, uint32_t c) {
        const uint32_t n = kClamp ? std::min(c, 32u) : c & 31;
        const uint64_t both = uint64_t{high} << 32 | low;
        return static_cast<uint32_t>(kLeft ? (both << n) >> 32 : both >> n);
      });
}

void decode_shf(Decoder& d, Modifiers& m) {
  const bool left = m.take("l");
  if (!left && !m.take("r")) m.fail();
  const bool clamp = m.take("clamp");
  if (!clamp && !m.take("wrap")) m.fail();
  place_operands(d, m.type(), 3);
  d.out().handler = left ? (clamp ? funnel<true, true> : funnel<true, false>)
                         : (clamp ? funnel<false, true> : funnel<false, false>);
}

template <typename F>
void decode_count(Decoder& d, Modifiers& m, F f) {
  const Type type = m.type();
  d.out().at[0] = d.destination(0, Type::kU32);
  d.out().at[1] = d.source(1, type);
  if (type_bytes(type) < 4) m.fail();
  d.out().handler = bits_handler(type, f);
}

void decode_popc(Decoder& d, Modifiers& m) {
  decode_count(d, m, []<typename T>() -> Handler {
    return +[](Warp& w, const Instruction& in, Lanes lanes) {
      return unary<uint32_t, T>(w, in, lanes, [](T a) { return __builtin_popcountll(a); });
    };
  });
}

void decode_clz(Decoder& d, Modifiers& m) {
  decode_count(d, m, []<typename T>() -> Handler {
    return +[](Warp& w, const Instruction& in, Lanes lanes) {
      return unary<uint32_t, T>(w, in, lanes, [](T a) {
        constexpr int kWidth = 8 * sizeof(T);
        return a == 0 ? kWidth : __builtin_clzll(a) - (64 - kWidth);
      });
    };
  });
}

// flags: whether to give the shift that brings the bit to the top.
void decode_bfind(Decoder& d, Modifiers& m) {
  d.out().flags = m.take("shiftamt");
  const Type type = m.type();
  d.out().at[0] = d.destination(0, Type::kU32);
  d.out().at[1] = d.source(1, type);
  d.out().handler = integer_handler(type, []<typename T>() -> Handler {
    return +[](Warp& w, const Instruction& in, Lanes lanes) {
      return unary<uint32_t, T>(w, in, lanes, [&in](T a) -> uint32_t {
        using U = std::make_unsigned_t<T>;
        const U u = a < 0 ? static_cast<U>(~static_cast<U>(a)) : static_cast<U>(a);
        if (u == 0) return ~0u;
        const uint32_t top = 63 - __builtin_clzll(u);
        return in.flags ? 8 * sizeof(T) - 1 - top : top;
      });
    };
  });
}

void decode_brev(Decoder& d, Modifiers& m) {
  const Type type = m.type();
  place_operands(d, type, 1);
  d.out().handler = bits_handler(type, []<typename T>() -> Handler {
    return +[](Warp& w, const Instruction& in, Lanes lanes) {
      return unary<T, T>(w, in, lanes, [](T a) {
        T result = 0;
        for (unsigned i = 0; i < 8 * sizeof(T); ++i)
          result |= (a >> i & 1) << (8 * sizeof(T) - 1 - i);
        return result;
      });
    };
  });
}

template <typename T>
T field_extract(T a, uint32_t position, uint32_t length) {
  constexpr uint32_t kWidth = 8 * sizeof(T);
  const uint32_t pos = position & 0xff, len = length & 0xff;
  using U = std::make_unsigned_t<T>;
  if (len == 0) return 0;
  const uint32_t sign_at = std::min(pos + len - 1, kWidth - 1);
  const bool sign = std::is_signed_v<T> && (static_cast<U>(a) >> sign_at & 1);
  U result = pos >= kWidth ? 0 : static_cast<U>(a) >> pos;
  const uint32_t valid = pos >= kWidth ? 0 : std::min(len, kWidth - pos);
  const U mask = valid >= kWidth ? ~U{0} : (U{1} << valid) - 1;
  result &= mask;
  return static_cast<T>(sign ? result | ~mask : result);
}

void decode_bfe(Decoder& d, Modifiers& m) {
  const Type type = m.type();
  d.out().at[0] = d.destination(0, type);
  d.out().at[1] = d.source(1, type);
  d.out().at[2] = d.source(2, Type::kU32);
  d.out().at[3] = d.source(3, Type::kU32);
  if (type_bytes(type) < 4) m.fail();
  d.out().handler = integer_handler(type, []<typename T>() -> Handler {
    return +[](Warp& w, const Instruction& in, Lanes lanes) {
      return ternary<T, T, uint32_t, uint32_t>(w, in, lanes, field_extract<T>);
    };
  });
}

template <typename T>
Step field_insert(Warp& w, const Instruction& in, Lanes lanes) {
  const T* a = w.values<T>(in.at[1]);
  const T* b = w.values<T>(in.at[2]);
  const uint32_t* position = w.values<uint32_t>(in.at[3]);
  const uint32_t* length = w.values<uint32_t>(in.at[4]);
  assign(w.values<T>(in.at[0]), lanes, [&](int i) {
    constexpr uint32_t kWidth = 8 * sizeof(T);
    const uint32_t pos = position[i] & 0xff, len = length[i] & 0xff;
    if (pos >= kWidth || len == 0) return b[i];
    const T field = len >= kWidth ? ~T{0} : static_cast<T>((T{1} << len) - 1);
    const T mask = static_cast<T>(field << pos);
    return static_cast<T>((b[i] & ~mask) | ((a[i] << pos) & mask));
  });
  return Step::kNext;
}

void decode_bfi(Decoder& d, Modifiers& m) {
  const Type type = m.type();
  place_operands(d, type, 2);
  d.out().at[3] = d.source(3, Type::kU32);
  d.out().at[4] = d.source(4, Type::kU32);
  d.out().handler = type_bytes(type) == 8 ? field_insert<uint64_t> : field_insert<uint32_t>;
}

// flags: whether shifts wrap.
void decode_bmsk(Decoder& d, Modifiers& m) {
  d.out().flags = m.take("wrap");
  if (!d.out().flags && !m.take("clamp")) m.fail();
  place_operands(d, m.type(), 2);
  d.out().handler = [](Warp& w, const Instruction& in, Lanes lanes) {
    return binary<uint32_t, uint32_t, uint32_t>(
        w, in, lanes, [&in](uint32_t pos, uint32_t len) -> uint32_t {
          if (in.flags) pos &= 31, len &= 31;
          if (pos >= 32) return 0;
          const uint64_t mask = (len >= 32 ? ~uint64_t{0} : (uint64_t{1} << len) - 1) << pos;
          return static_cast<uint32_t>(mask);
        });
  };
}

void decode_lop3(Decoder& d, Modifiers& m) {
  if (m.type() != Type::kB32) m.fail();
  place_operands(d, Type::kB32, 3);
  d.out().flags = static_cast<uint32_t>(d.operand(4).bits);
  d.out().handler = [](Warp& w, const Instruction& in, Lanes lanes) {
    return ternary<uint32_t, uint32_t, uint32_t, uint32_t>(
        w, in, lanes, [&in](uint32_t a, uint32_t b, uint32_t c) {
          uint32_t result = 0;
          for (uint32_t i = 0; i < 8; ++i) {
            const uint32_t row = (i & 4 ? a : ~a) & (i & 2 ? b : ~b) & (i & 1 ? c : ~c);
            result |= row & (0u - (in.flags >> i & 1));
          }
          return result;
        });
  };
}

enum class Permute : uint32_t { kPlain, kF4e, kB4e, kRc8, kEcl, kEcr, kRc16 };

uint32_t selector(Permute mode, uint32_t c) {
  const uint32_t n = c & 3;
  switch (mode) {
    case Permute::kPlain:
      return c;
    case Permute::kF4e:
      return (n + 3) << 12 | (n + 2) << 8 | (n + 1) << 4 | n;
    case Permute::kB4e:
      return ((n + 5) & 7) << 12 | ((n + 6) & 7) << 8 | ((n + 7) & 7) << 4 | n;
    case Permute::kRc8:
      return n << 12 | n << 8 | n << 4 | n;
    case Permute::kEcl:
      return 3 << 12 | std::max(n, 2u) << 8 | std::max(n, 1u) << 4 | n;
    case Permute::kEcr:
      return n << 12 | std::min(n, 2u) << 8 | std::min(n, 1u) << 4;
    case Permute::kRc16:
      return n & 1 ? 0x3232 : 0x1010;
  }
  return 0;
}

void decode_prmt(Decoder& d, Modifiers& m) {
  if (m.type() != Type::kB32) m.fail();
  const std::string_view mode = m.take_any({"f4e", "b4e", "rc8", "ecl", "ecr", "rc16"});
  d.out().flags = static_cast<uint32_t>(mode == "f4e"    ? Permute::kF4e
                                        : mode == "b4e"  ? Permute::kB4e
                                        : mode == "rc8"  ? Permute::kRc8
                                        : mode == "ecl"  ? Permute::kEcl
                                        : mode == "ecr"  ? Permute::kEcr
                                        : mode == "rc16" ? Permute::kRc16
                                                         : Permute::kPlain);
  place_operands(d, Type::kB32, 3);
  d.out().handler = [](Warp& w, const Instruction& in, Lanes lanes) {
    return ternary<uint32_t, uint32_t, uint32_t, uint32_t>(
        w, in, lanes, [&in](uint32_t a, uint32_t b, uint32_t c) {
          const uint64_t bytes = uint64_t{b} << 32 | a;
          const uint32_t select = selector(static_cast<Permute>(in.flags), c);
          uint32_t result = 0;
          for (int i = 0; i < 4; ++i) {
            const uint32_t s = select >> (4 * i) & 0xf;
            uint32_t byte = bytes >> (8 * (s & 7)) & 0xff;
            if (s & 8) byte = byte & 0x80 ? 0xff : 0;
            result |= byte << (8 * i);
          }
          return result;
        });
  };
}

void decode_szext(Decoder& d, Modifiers& m) {
  d.out().flags = m.take("wrap");
  if (!d.out().flags && !m.take("clamp")) m.fail();
  const Type type = m.type();
  place_operands(d, type, 2);
  d.out().handler = type == Type::kS32 ? +[](Warp& w, const Instruction& in, Lanes lanes) {
    return binary<int32_t, int32_t, uint32_t>(w, in, lanes, [&in](int32_t a, uint32_t n) {
      if (in.flags) n &= 31;
      return field_extract<int32_t>(a, 0, std::min(n, 32u));
    });
  } : +[](Warp& w, const Instruction& in, Lanes lanes) {
    return binary<uint32_t, uint32_t, uint32_t>(w, in, lanes, [&in](uint32_t a, uint32_t n) {
      if (in.flags) n &= 31;
      return field_extract<uint32_t>(a, 0, std::min(n, 32u));
    });
  };
}

// The position of the n-th set bit of a mask, counted from `base` upwards (n > 0) or downwards.
uint32_t find_nth_set(uint32_t mask, uint32_t base, int32_t n) {
  const int step = n < 0 ? -1 : 1;
  uint32_t left = n == 0 ? 1 : static_cast<uint32_t>(n < 0 ? -n : n);
  for (int64_t at = base; at >= 0 && at < 32; at += step) {
    if (mask >> at & 1) {
      if (--left == 0) return static_cast<uint32_t>(at);
    }
    if (n == 0) break;
  }
  return ~0u;
}

void decode_fns(Decoder& d, Modifiers& m) {
  m.type();
  place_operands(d, Type::kB32, 3);
  d.out().handler = [](Warp& w, const Instruction& in, Lanes lanes) {
    return ternary<uint32_t, uint32_t, uint32_t, int32_t>(w, in, lanes, find_nth_set);
  };
}

}  // namespace

std::vector<DecodeEntry> bit_instructions() {
  return {{"and", decode_logic<Logic::kAnd>},
          {"or", decode_logic<Logic::kOr>},
          {"xor", decode_logic<Logic::kXor>},
          {"not", decode_not},
          {"cnot", decode_cnot},
          {"shl", decode_shift<true>},
          {"shr", decode_shift<false>},
          {"shf", decode_shf},
          {"popc", decode_popc},
          {"clz", decode_clz},
          {"bfind", decode_bfind},
          {"brev", decode_brev},
          {"bfe", decode_bfe},
          {"bfi", decode_bfi},
          {"bmsk", decode_bmsk},
          {"lop3", decode_lop3},
          {"prmt", decode_prmt},
          {"szext", decode_szext},
          {"fns", decode_fns}};
}

}  // namespace sprocket::cuda_simulator
