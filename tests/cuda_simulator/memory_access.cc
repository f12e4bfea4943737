// ld, st, prefetch, fences and cache policies.
#include <cstring>

#include "tests/cuda_simulator/access.h"
#include "tests/cuda_simulator/typed.h"

namespace sprocket::cuda_simulator {
namespace {

// flags of loads and stores: space | narrow base << 8 | sign-extend << 9; the list holds the places
// of the elements and, for each, the bytes of its register: kNowhere as a place means "skip".
AddressOperand address_of(const Instruction& in) {
  return {in.at[0], (in.flags >> 8 & 1) != 0, in.immediate};
}
Space space_of(const Instruction& in) { return static_cast<Space>(in.flags & 0xff); }

template <typename T, int kCount>
Step load(Warp& w, const Instruction& in, Lanes lanes) {
  const AddressOperand address = address_of(in);
  const Space space = space_of(in);
  T* to[kCount];
  const uint32_t* list = w.list(in);
  for (int k = 0; k < kCount; ++k) to[k] = list[k] == kNowhere ? nullptr : w.values<T>(list[k]);
  T values[kCount][kWarpSize] = {};
  for_each_lane(lanes, [&](int i) {
    const std::byte* from =
        locate(w, space, i, address.of(w, i), sizeof(T) * kCount, sizeof(T) * kCount);
    for (int k = 0; k < kCount; ++k) std::memcpy(&values[k][i], from + k * sizeof(T), sizeof(T));
  });
  for (int k = 0; k < kCount; ++k) {
    if (to[k] != nullptr) assign(to[k], lanes, [&](int i) { return values[k][i]; });
  }
  return Step::kNext;
}

// R is the register, T the value in memory.
template <typename T, typename R>
Step load_extended(Warp& w, const Instruction& in, Lanes lanes) {
  const AddressOperand address = address_of(in);
  const Space space = space_of(in);
  const uint32_t* list = w.list(in);
  const uint32_t count = static_cast<uint32_t>(in.at[1]);
  for_each_lane(lanes, [&](int i) {
    const std::byte* from =
        locate(w, space, i, address.of(w, i), sizeof(T) * count, sizeof(T) * count);
    for (uint32_t k = 0; k < count; ++k) {
      T value;
      std::memcpy(&value, from + k * sizeof(T), sizeof(T));
      if (list[k] != kNowhere) w.values<R>(list[k])[i] = static_cast<R>(value);
    }
  });
  return Step::kNext;
}

template <typename T, typename R>
Step store(Warp& w, const Instruction& in, Lanes lanes) {
  const AddressOperand address = address_of(in);
  const Space space = space_of(in);
  const uint32_t* list = w.list(in);
  const uint32_t count = static_cast<uint32_t>(in.at[1]);
  w.cta().grid().event();
  for_each_lane(lanes, [&](int i) {
    std::byte* to = locate(w, space, i, address.of(w, i), sizeof(T) * count, sizeof(T) * count);
    for (uint32_t k = 0; k < count; ++k) {
      const T value = static_cast<T>(w.values<R>(list[k])[i]);
      std::memcpy(to + k * sizeof(T), &value, sizeof(T));
    }
  });
  return Step::kNext;
}

struct Bits128 {
  uint64_t low, high;
};

template <typename T>
Handler load_of(unsigned count) {
  switch (count) {
    case 1:
      return load<T, 1>;
    case 2:
      return load<T, 2>;
    case 4:
      return load<T, 4>;
    case 8:
      return load<T, 8>;
  }
  unsupported("vectors of {} elements", count);
}

template <typename T>
Handler extended_load_of(unsigned register_bytes) {
  switch (register_bytes) {
    case 2:
      return std::is_signed_v<T> ? load_extended<T, int16_t> : load_extended<T, uint16_t>;
    case 4:
      return load_extended<T, uint32_t>;
    case 8:
      return load_extended<T, uint64_t>;
  }
  unsupported("registers of {} bytes", register_bytes);
}

template <typename T>
Handler store_of(unsigned register_bytes) {
  switch (register_bytes) {
    case 1:
      return store<T, uint8_t>;
    case 2:
      return store<T, uint16_t>;
    case 4:
      return store<T, uint32_t>;
    case 8:
      return store<T, uint64_t>;
  }
  unsupported("registers of {} bytes", register_bytes);
}

// Caches, orders and scopes change nothing here: every access is in order.
void take_hints(Modifiers& m) {
  m.take_any({"volatile", "relaxed", "acquire", "release", "weak", "mmio"});
  m.take_any({"cta", "cluster", "gpu", "sys"});
  m.take_any({"ca", "cg", "cs", "lu", "cv", "wb", "wt"});
  m.take("nc");
  m.take("unified");
  m.take_any({"L1::evict_normal", "L1::evict_unchanged", "L1::evict_first", "L1::evict_last",
              "L1::no_allocate"});
  m.take_any({"L2::evict_normal", "L2::evict_first", "L2::evict_last"});
  m.take("L2::cache_hint");
  m.take_any({"L2::64B", "L2::128B", "L2::256B"});
}

// Fills the address and the space; parameters of functions are in local memory.
void decode_address(Decoder& d, const Operand& operand, Space space) {
  if (space == Space::kParam) {
    space = Space::kLocal;
    if (!operand.items.empty() && operand.items.front().kind == Operand::Kind::kVariable) {
      space = d.variable_space(operand.items.front().name);
    } else if (d.in_entry()) {
      space = Space::kParam;
    }
  } else if (space == Space::kGeneric && !operand.items.empty() &&
             operand.items.front().kind == Operand::Kind::kVariable) {
    space = d.variable_space(operand.items.front().name);
  }
  unsigned bytes;
  d.out().at[0] = d.address(operand, bytes);
  d.out().flags = static_cast<uint32_t>(space) | (bytes == 4 ? 1u << 8 : 0);
}

unsigned vector_length(Modifiers& m) {
  const std::string_view v = m.take_any({"v2", "v4", "v8"});
  return v.empty() ? 1 : static_cast<unsigned>(v[1] - '0');
}

// Appends the registers of an operand to the list, and returns how wide they are.
unsigned append_registers(Decoder& d, const Operand& operand, unsigned count, Type type,
                          bool reads) {
  const bool is_vector = operand.kind == Operand::Kind::kVector;
  if (count != (is_vector ? operand.items.size() : 1))
    unsupported("expected a vector of {}", count);
  unsigned width = type_bytes(type);
  const auto item = [&](unsigned k) -> const Operand& {
    return is_vector ? operand.items[k] : operand;
  };
  for (unsigned k = 0; k < count; ++k) {
    if (item(k).kind == Operand::Kind::kRegister) d.any_register(item(k), width);
  }
  if (width < type_bytes(type)) unsupported("the register {} is too narrow", operand.name);
  const Type as = width == type_bytes(type) ? type
                  : width == 2              ? Type::kB16
                  : width == 4              ? Type::kB32
                                            : Type::kB64;
  for (unsigned k = 0; k < count; ++k) {
    if (item(k).kind == Operand::Kind::kSink) {
      d.append(kNowhere);
    } else {
      d.append(reads ? d.source(item(k), as) : d.destination(item(k), as));
    }
  }
  return width;
}

void decode_ld(Decoder& d, Modifiers& m) {
  const Space space = space_named(m);
  take_hints(m);
  const unsigned count = vector_length(m);
  const Type type = m.type();
  decode_address(d, d.operand(1), space);
  d.out().list = d.begin_list();
  d.out().at[1] = count;
  const unsigned width = append_registers(d, d.operand(0), count, type, false);
  if (type == Type::kB128) {
    d.out().handler = load_of<Bits128>(count);
  } else if (width == type_bytes(type)) {
    d.out().handler = width == 1
                          ? load_of<uint8_t>(count)
                          : bits_handler(type, [count]<typename T>() { return load_of<T>(count); });
  } else {
    d.out().handler =
        integer_handler(type, [width]<typename T>() { return extended_load_of<T>(width); });
  }
}

void decode_st(Decoder& d, Modifiers& m) {
  const Space space = space_named(m);
  take_hints(m);
  const unsigned count = vector_length(m);
  const Type type = m.type();
  decode_address(d, d.operand(0), space);
  d.out().list = d.begin_list();
  d.out().at[1] = count;
  const unsigned width = append_registers(d, d.operand(1), count, type, true);
  if (type == Type::kB128) {
    d.out().handler = store<Bits128, Bits128>;
    return;
  }
  switch (type_bytes(type)) {
    case 1:
      d.out().handler = store_of<uint8_t>(width);
      break;
    case 2:
      d.out().handler = store_of<uint16_t>(width);
      break;
    case 4:
      d.out().handler = store_of<uint32_t>(width);
      break;
    case 8:
      d.out().handler = store_of<uint64_t>(width);
      break;
  }
}

Step nothing(Warp&, const Instruction&, Lanes) { return Step::kNext; }

// Accesses happen in order, at once, and for everybody.
void decode_fence(Decoder& d, Modifiers& m) {
  m.take_any({"proxy", "mbarrier_init"});
  m.take_any({"sc", "acq_rel", "acquire", "release"});
  m.take_any({"cta", "cluster", "gpu", "sys", "gl"});
  m.take_any({"async", "async.global", "tensormap::generic", "alias", "tensormap"});
  m.take_any({"release", "acquire"});
  m.take_any({"global", "shared::cta", "shared::cluster"});
  m.take_any({"cta", "cluster", "gpu", "sys"});
  m.take_any({"sync_restrict::shared::cta", "sync_restrict::shared::cluster"});
  d.out().handler = nothing;
}

void decode_prefetch(Decoder& d, Modifiers& m) {
  space_named(m);
  m.take_any({"L1", "L2", "tensormap", "L2::evict_last", "L2::evict_normal"});
  d.out().handler = nothing;
}

Step zero64(Warp& w, const Instruction& in, Lanes lanes) {
  assign(w.values<uint64_t>(in.at[0]), lanes, [](int) { return uint64_t{0}; });
  return Step::kNext;
}

void decode_createpolicy(Decoder& d, Modifiers& m) {
  m.take_any({"fractional", "range"});
  m.take("global");
  m.take_any({"L2::evict_last", "L2::evict_normal", "L2::evict_first", "L2::evict_unchanged"});
  m.take_any({"L2::evict_first", "L2::evict_unchanged"});
  m.type();
  d.out().at[0] = d.destination(0, Type::kB64);
  d.out().handler = zero64;
}

}  // namespace

std::vector<DecodeEntry> memory_instructions() {
  return {{"ld", decode_ld},
          {"ldu", decode_ld},
          {"st", decode_st},
          {"membar", decode_fence},
          {"fence", decode_fence},
          {"prefetch", decode_prefetch},
          {"prefetchu", decode_prefetch},
          {"createpolicy", decode_createpolicy}};
}

}  // namespace sprocket::cuda_simulator
