// mov, packing and unpacking, addresses between spaces.
#include <cstring>

#include "tests/cuda_simulator/access.h"
#include "tests/cuda_simulator/typed.h"

namespace sprocket::cuda_simulator {
namespace {

Step move_predicate(Warp& w, const Instruction& in, Lanes lanes) {
  w.set_predicate(in.at[0], lanes, w.predicate(in.at[1]) ^ in.flags);
  return Step::kNext;
}

template <typename T>
Step move(Warp& w, const Instruction& in, Lanes lanes) {
  const T* a = w.values<T>(in.at[1]);
  T* to = w.values<T>(in.at[0]);
  if (lanes == kAllLanes) {
    std::memmove(to, a, sizeof(T) * kWarpSize);
  } else {
    for_each_lane(lanes, [&](int i) { to[i] = a[i]; });
  }
  return Step::kNext;
}

struct Bits128 {
  uint64_t low, high;
};

// at[0]: the whole; the list: its parts; flags: bytes of the whole | bytes of a part << 8.
template <bool kPack>
Step repack(Warp& w, const Instruction& in, Lanes lanes) {
  const uint32_t whole_bytes = in.flags & 0xff, part_bytes = in.flags >> 8;
  const uint32_t* parts = w.list(in);
  for_each_lane(lanes, [&](int i) {
    std::byte buffer[16];
    std::byte* whole = w.values<std::byte>(in.at[0]) + i * whole_bytes;
    if (!kPack) std::memcpy(buffer, whole, whole_bytes);
    for (uint32_t k = 0; k * part_bytes < whole_bytes; ++k) {
      if (parts[k] == kNowhere) continue;
      std::byte* part = w.values<std::byte>(parts[k]) + i * part_bytes;
      std::memcpy(kPack ? buffer + k * part_bytes : part, kPack ? part : buffer + k * part_bytes,
                  part_bytes);
    }
    if (kPack) std::memcpy(whole, buffer, whole_bytes);
  });
  return Step::kNext;
}

Type part_type(unsigned bytes) {
  return bytes == 1 ? Type::kB8 : bytes == 2 ? Type::kB16 : bytes == 4 ? Type::kB32 : Type::kB64;
}

void decode_repack(Decoder& d, Type type, bool packs) {
  const Operand& parts = d.operand(packs ? 1 : 0);
  const unsigned bytes = type_bytes(type) / static_cast<unsigned>(parts.items.size());
  d.out().at[0] = packs ? d.destination(0, type) : d.source(1, type);
  d.out().flags = type_bytes(type) | bytes << 8;
  d.out().list = d.begin_list();
  for (const Operand& part : parts.items) {
    if (part.kind == Operand::Kind::kSink) {
      d.append(kNowhere);
    } else {
      d.append(packs ? d.source(part, part_type(bytes)) : d.destination(part, part_type(bytes)));
    }
  }
  d.out().handler = packs ? repack<true> : repack<false>;
}

// Clocks advance with the instructions of the grid.
template <typename T>
Step read_clock(Warp& w, const Instruction& in, Lanes lanes) {
  Grid& grid = w.cta().grid();
  grid.count(1);
  const uint64_t now = grid.instructions();
  assign(w.values<T>(in.at[0]), lanes, [&](int) { return static_cast<T>(now); });
  return Step::kYield;
}

void decode_mov(Decoder& d, Modifiers& m) {
  const Type type = m.type();
  const Operand& to = d.operand(0);
  const Operand& from = d.operand(1);
  if (to.kind == Operand::Kind::kVector && from.kind == Operand::Kind::kVector) m.fail();
  if (to.kind == Operand::Kind::kVector) return decode_repack(d, type, false);
  if (from.kind == Operand::Kind::kVector) return decode_repack(d, type, true);
  d.out().at[0] = d.destination(to, type);
  if (from.kind == Operand::Kind::kSpecial &&
      (from.name == "%clock" || from.name == "%clock_hi" || from.name == "%clock64" ||
       from.name == "%globaltimer" || from.name == "%globaltimer_lo")) {
    d.out().handler = type_bytes(type) == 8 ? read_clock<uint64_t> : read_clock<uint32_t>;
    return;
  }
  if (type == Type::kPredicate) {
    Lanes flip;
    d.out().at[1] = d.predicate(from, flip);
    d.out().flags = flip;
    d.out().handler = move_predicate;
    return;
  }
  d.out().at[1] = d.source(from, type);
  d.out().handler = type == Type::kB128
                        ? move<Bits128>
                        : bits_handler(type, []<typename T>() -> Handler { return move<T>; });
}

uint64_t window(Space space, Modifiers& m) {
  switch (space) {
    case Space::kGlobal:
    case Space::kConst:
      return 0;
    case Space::kShared:
    case Space::kSharedCluster:
      return kSharedWindow;
    case Space::kLocal:
      return kLocalWindow;
    case Space::kParam:
      return kParamWindow;
    case Space::kGeneric:
      break;
  }
  m.fail();
}

// The generic address, or back: immediate is what to add.
Step shift_window(Warp& w, const Instruction& in, Lanes lanes) {
  return unary<uint64_t, uint64_t>(
      w, in, lanes, [&in](uint64_t a) { return a + static_cast<uint64_t>(in.immediate); });
}

void decode_cvta(Decoder& d, Modifiers& m) {
  const bool to = m.take("to");
  const uint64_t base = window(space_named(m), m);
  if (type_bytes(m.type()) != 8) m.fail();
  place_operands(d, Type::kU64, 1);
  d.out().immediate = static_cast<int64_t>(to ? -base : base);
  d.out().handler = shift_window;
}

Step is_space(Warp& w, const Instruction& in, Lanes lanes) {
  const uint64_t* a = w.values<uint64_t>(in.at[1]);
  const Space space = static_cast<Space>(in.flags);
  Lanes bits = 0;
  for (int i = 0; i < kWarpSize; ++i) {
    const bool shared = a[i] - kSharedWindow < kSpecialWindowBytes;
    const uint64_t rank = (a[i] - kSharedWindow) >> kSharedRankShift;
    const bool own = shared && (rank == 0 || rank == w.cta().rank() + 1);
    const bool local = a[i] - kLocalWindow < kSpecialWindowBytes;
    const bool param = a[i] - kParamWindow < kSpecialWindowBytes;
    const bool yes = space == Space::kShared          ? own
                     : space == Space::kSharedCluster ? shared
                     : space == Space::kLocal         ? local
                     : space == Space::kParam         ? param
                     : space == Space::kGlobal        ? !shared && !local && !param
                                                      : false;
    bits |= Lanes{yes} << i;
  }
  w.set_predicate(in.at[0], lanes, bits);
  return Step::kNext;
}

void decode_isspacep(Decoder& d, Modifiers& m) {
  d.out().flags = static_cast<uint32_t>(space_named(m));
  d.out().at[0] = d.destination(0, Type::kPredicate);
  d.out().at[1] = d.source(1, Type::kU64);
  d.out().handler = is_space;
}

}  // namespace

std::vector<DecodeEntry> move_instructions() {
  return {{"mov", decode_mov}, {"cvta", decode_cvta}, {"isspacep", decode_isspacep}};
}

}  // namespace sprocket::cuda_simulator
