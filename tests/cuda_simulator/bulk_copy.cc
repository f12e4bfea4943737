// cp.async.bulk and cp.async.bulk.tensor, cp.reduce.async.bulk.
#include <cstring>
#include <vector>

#include "tests/cuda_simulator/access.h"
#include "tests/cuda_simulator/families.h"
#include "tests/cuda_simulator/floats.h"
#include "tests/cuda_simulator/mbarrier.h"
#include "tests/cuda_simulator/tensor_map.h"
#include "tests/cuda_simulator/typed.h"

namespace sprocket::cuda_simulator {
namespace {

constexpr uint64_t kSharedAlign = 128;

enum class Reduction : uint32_t { kNone, kAdd, kMin, kMax };

// What the list of an instruction holds, in this order: places and flags of the operands.
struct Shape {
  uint32_t rank;         // 0: not a tensor
  uint32_t to_shared;    // from global (or another CTA's shared) memory to shared memory
  uint32_t from_shared;  // the source is shared memory
  uint32_t multicast;    // place of the mask, or kNowhere
  uint32_t barrier;      // place of its address, or kNowhere: a bulk group
  uint32_t barrier_wide;
  uint32_t barrier_offset;
  uint32_t shared;  // place of the address in shared memory, the destination if there are two
  uint32_t shared_wide;
  uint32_t shared_offset;
  uint32_t global;  // place of the other address: global memory, a tensor map, or a source in
                    // shared memory
  uint32_t global_wide;
  uint32_t global_offset;
  uint32_t bytes;  // place, of copies without a tensor
  uint32_t reduction;
  uint32_t type;
  uint32_t coordinate[kMaxTensorRank];
};
constexpr size_t kShapeWords = sizeof(Shape) / sizeof(uint32_t);

template <typename T, typename F>
void combine(std::byte* to, const std::byte* from, F f) {
  T a, b;
  std::memcpy(&a, to, sizeof a);
  std::memcpy(&b, from, sizeof b);
  a = f(a, b);
  std::memcpy(to, &a, sizeof a);
}

template <typename T, typename F>
T reduced(T a, T b, Reduction how, F value) {
  if (how == Reduction::kMin) return value(b) < value(a) ? b : a;
  return value(a) < value(b) ? b : a;
}

template <typename T>
void reduce_number(std::byte* to, const std::byte* from, Reduction how) {
  combine<T>(to, from, [how](T a, T b) {
    return how == Reduction::kAdd ? static_cast<T>(a + b)
                                  : reduced(a, b, how, [](T v) { return v; });
  });
}

template <typename H>
void reduce_short(std::byte* to, const std::byte* from, Reduction how) {
  combine<H>(to, from, [how](H a, H b) {
    return how == Reduction::kAdd ? from_float<H>(to_float(a) + to_float(b))
                                  : reduced(a, b, how, [](H v) { return to_float(v); });
  });
}

void reduce_element(std::byte* to, const std::byte* from, Type type, Reduction how) {
  using Reduce = void (*)(std::byte*, const std::byte*, Reduction);
  const Reduce reduce = with_value_type(type, []<typename T>() -> Reduce {
    if constexpr (ShortFloat<T>::kPair || (!ShortFloat<T>::kIs && sizeof(T) < 4)) {
      return nullptr;
    } else if constexpr (ShortFloat<T>::kIs) {
      return reduce_short<T>;
    } else {
      return reduce_number<T>;
    }
  });
  if (reduce == nullptr) unsupported("bulk reductions of {}", type_name(type));
  reduce(to, from, how);
}

Type element_type(const TensorMap& map) {
  switch (static_cast<CUtensorMapDataType>(map.type)) {
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT16:
      return Type::kF16;
    case CU_TENSOR_MAP_DATA_TYPE_BFLOAT16:
      return Type::kBf16;
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT32:
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT32_FTZ:
      return Type::kF32;
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT64:
      return Type::kF64;
    case CU_TENSOR_MAP_DATA_TYPE_UINT32:
      return Type::kU32;
    case CU_TENSOR_MAP_DATA_TYPE_INT32:
      return Type::kS32;
    case CU_TENSOR_MAP_DATA_TYPE_UINT64:
      return Type::kU64;
    case CU_TENSOR_MAP_DATA_TYPE_UINT8:
    case CU_TENSOR_MAP_DATA_TYPE_UINT16:
    case CU_TENSOR_MAP_DATA_TYPE_INT64:
    case CU_TENSOR_MAP_DATA_TYPE_TFLOAT32:
    case CU_TENSOR_MAP_DATA_TYPE_TFLOAT32_FTZ:
    case CU_TENSOR_MAP_DATA_TYPE_16U4_ALIGN8B:
    case CU_TENSOR_MAP_DATA_TYPE_16U4_ALIGN16B:
    case CU_TENSOR_MAP_DATA_TYPE_16U6_ALIGN16B:
      break;
  }
  unsupported("bulk reductions of this element type");
}

// One copy of one lane, with everything that its registers said.
struct Copy {
  Warp* warp;
  int lane;
  Shape shape;
  TensorMap map;
  int32_t coordinates[kMaxTensorRank];
  uint64_t shared, global, barrier;
  uint64_t bytes;

  std::byte* shared_memory(Cta& cta, uint64_t offset, uint64_t length) const {
    std::byte* found = locate_shared(cta, shared + offset, length);
    if (found == nullptr) {
      throw LaneError(
          Fault::kIllegalAddress, lane,
          fmt::format("a bulk copy of {} bytes at {:#x} of shared memory: the block has {}", bytes,
                      shared, cta.shared_bytes()));
    }
    return found;
  }
  std::byte* global_memory(uint64_t address, uint64_t length) const {
    return locate(*warp,
                  shape.from_shared && shape.to_shared ? Space::kSharedCluster : Space::kGlobal,
                  lane, address, length, 1);
  }
  void check(Cta& cta) const {
    shared_memory(cta, 0, bytes);
    if (shape.rank == 0) global_memory(global, bytes);
  }
  void load(Cta& cta) const {
    if (shape.rank == 0) {
      std::memcpy(shared_memory(cta, 0, bytes), global_memory(global, bytes), bytes);
      return;
    }
    // The swizzle is one of addresses: of the offset in a shared memory that begins at 0.
    const uint64_t width = map.stride[0];
    std::byte* memory = shared_memory(cta, 0, bytes);
    const std::byte fill{map.nan_fill ? uint8_t{0xff} : uint8_t{0}};
    for_each_element(map, coordinates, [&](uint64_t address, uint64_t offset) {
      std::byte* to = memory + (swizzled(shared + offset, map.swizzle) - shared);
      if (address == 0) {
        std::memset(to, static_cast<int>(fill), width);
      } else {
        std::memcpy(to, global_memory(address, width), width);
      }
    });
  }
  void write(std::byte* to, const std::byte* from, uint64_t width, Type type) const {
    const auto how = static_cast<Reduction>(shape.reduction);
    if (how == Reduction::kNone)
      std::memcpy(to, from, width);
    else
      reduce_element(to, from, type, how);
  }
  void store(Cta& cta) const {
    const std::byte* memory = shared_memory(cta, 0, bytes);
    if (shape.rank == 0) {
      const auto type = static_cast<Type>(shape.type);
      const uint64_t width = shape.reduction == 0 ? bytes : type_bytes(type);
      for (uint64_t at = 0; at < bytes; at += width)
        write(global_memory(global + at, width), memory + at, width, type);
      return;
    }
    const uint64_t width = map.stride[0];
    const Type type = shape.reduction == 0 ? Type::kB8 : element_type(map);
    for_each_element(map, coordinates, [&](uint64_t address, uint64_t offset) {
      if (address == 0) return;
      write(global_memory(address, width),
            memory + (swizzled(shared + offset, map.swizzle) - shared), width, type);
    });
  }
};

uint64_t address_at(Warp& w, uint32_t place, uint32_t wide, uint32_t offset, int lane) {
  return AddressOperand{place, wide == 0, static_cast<int32_t>(offset)}.of(w, lane);
}

uint64_t shared_part(uint64_t address) {
  return address - kSharedWindow < kSpecialWindowBytes ? address - kSharedWindow : address;
}

Copy copy_of(Warp& w, const Shape& s, int lane) {
  Copy c{&w, lane, s, {}, {}, 0, 0, 0, 0};
  c.shared = shared_part(address_at(w, s.shared, s.shared_wide, s.shared_offset, lane));
  c.global = address_at(w, s.global, s.global_wide, s.global_offset, lane);
  if (s.from_shared && s.to_shared) c.global = shared_part(c.global);
  if (s.barrier != kNowhere)
    c.barrier = shared_part(address_at(w, s.barrier, s.barrier_wide, s.barrier_offset, lane));
  const uint64_t offset = c.shared & ((uint64_t{1} << kSharedRankShift) - 1);
  if (s.rank > 0) {
    std::memcpy(&c.map, locate(w, Space::kGeneric, lane, c.global, sizeof(CUtensorMap), 64),
                sizeof c.map);
    if (c.map.magic != TensorMap::kMagic) {
      throw LaneError(Fault::kIllegalInstruction, lane,
                      "a bulk copy with a tensor map that was not encoded");
    }
    if (c.map.rank != s.rank) {
      throw LaneError(
          Fault::kIllegalInstruction, lane,
          fmt::format("a bulk copy of rank {} with a tensor map of rank {}", s.rank, c.map.rank));
    }
    for (uint32_t i = 0; i < s.rank; ++i)
      c.coordinates[i] = w.values<int32_t>(s.coordinate[i])[lane];
    c.bytes = c.map.box_bytes();
    if (offset % kSharedAlign != 0) misaligned(lane, c.shared, kSharedAlign);
  } else {
    c.bytes = w.values<uint32_t>(s.bytes)[lane];
    if (offset % 16 != 0) misaligned(lane, c.shared, 16);
    if (c.global % 16 != 0) misaligned(lane, c.global, 16);
    if (c.bytes % 16 != 0) {
      throw LaneError(Fault::kIllegalInstruction, lane,
                      fmt::format("a bulk copy of {} bytes: expected a multiple of 16", c.bytes));
    }
  }
  return c;
}

// Into shared memory of one CTA, or of each in the mask at the same offset, with its own barrier
// there.
void start_load(Warp& w, const Copy& c, uint32_t mask) {
  Cta& cta = w.cta();
  const auto start = [&](const Copy& one) {
    one.check(cta);
    Cta* owner = nullptr;
    std::byte* barrier = locate_shared(cta, one.barrier, 8, &owner);
    if (barrier == nullptr)
      throw LaneError(Fault::kIllegalAddress, c.lane,
                      "the mbarrier of a bulk copy is out of bounds");
    std::memset(one.shared_memory(cta, 0, one.bytes), 0xff, one.bytes);
    Mbarrier(barrier).state();
    Cta* here = &cta;
    cta.grid().defer([one, barrier, here] {
      one.load(*here);
      Mbarrier(barrier).complete_bytes(static_cast<uint32_t>(one.bytes));
    });
  };
  if (mask == 0) return start(c);
  const uint64_t offsets = (uint64_t{1} << kSharedRankShift) - 1;
  for (uint32_t rank = 0; rank < cta.cluster().size(); ++rank) {
    if ((mask >> rank & 1) == 0) continue;
    Copy one = c;
    one.shared = (uint64_t{rank} + 1) << kSharedRankShift | (c.shared & offsets);
    one.barrier = (uint64_t{rank} + 1) << kSharedRankShift | (c.barrier & offsets);
    start(one);
  }
}

Step bulk_copy(Warp& w, const Instruction& in, Lanes lanes) {
  Shape s;
  std::memcpy(&s, w.list(in), sizeof s);
  w.cta().grid().event();
  for_each_lane(lanes, [&](int lane) {
    const Copy c = copy_of(w, s, lane);
    if (s.to_shared) {
      start_load(w, c, s.multicast == kNowhere ? 0 : w.values<uint16_t>(s.multicast)[lane]);
      return;
    }
    c.check(w.cta());
    Cta* cta = &w.cta();
    w.bulk_copies[lane].add([c, cta] { c.store(*cta); });
  });
  return Step::kNext;
}

Step commit_group(Warp& w, const Instruction&, Lanes lanes) {
  for_each_lane(lanes, [&](int i) { w.bulk_copies[i].commit(); });
  return Step::kNext;
}

Step wait_group(Warp& w, const Instruction& in, Lanes lanes) {
  w.cta().grid().event();
  for_each_lane(lanes, [&](int i) { w.bulk_copies[i].wait(static_cast<uint64_t>(in.immediate)); });
  return Step::kNext;
}

Step nothing(Warp&, const Instruction&, Lanes) { return Step::kNext; }

void take_address(Decoder& d, const Operand& operand, uint32_t& place, uint32_t& wide,
                  uint32_t& offset) {
  unsigned width;
  place = d.address(operand, width);
  wide = width == 8;
  offset = static_cast<uint32_t>(static_cast<int32_t>(d.out().immediate));
}

void decode_shape(Decoder& d, Modifiers& m, bool reduces) {
  Shape s{};
  s.multicast = s.barrier = s.bytes = kNowhere;
  const bool is_tensor = m.take("tensor");
  if (is_tensor) {
    const std::string_view rank = m.take_any({"1d", "2d", "3d", "4d", "5d"});
    if (rank.empty()) m.fail();
    s.rank = static_cast<uint32_t>(rank[0] - '0');
    m.take("tile");
  }
  s.to_shared = m.take("shared::cluster");
  const bool global = m.take("global");
  const bool cta = m.take("shared::cta");
  if (!s.to_shared && cta && !global) m.fail();
  // shared::cta comes first in the form "shared::cta.global", which is a load, too.
  const bool groups = m.take("bulk_group");
  if (!s.to_shared && cta && !groups) s.to_shared = 1;
  s.from_shared = cta && !(s.to_shared && global);
  const bool completes = m.take("mbarrier::complete_tx::bytes");
  if (s.to_shared ? !completes || groups : !groups || completes) m.fail();
  const bool multicast = m.take("multicast::cluster");
  m.take("L2::cache_hint");
  if (reduces) {
    const std::string_view how = m.take_any({"add", "min", "max"});
    if (how.empty() || s.to_shared) m.fail();
    s.reduction = static_cast<uint32_t>(how == "add"   ? Reduction::kAdd
                                        : how == "min" ? Reduction::kMin
                                                       : Reduction::kMax);
    m.take("noftz");
    if (!is_tensor) s.type = static_cast<uint32_t>(m.type());
  }
  const Operand& first = d.operand(0);
  const Operand& second = d.operand(1);
  const Operand& outside = s.to_shared ? second : first;
  take_address(d, s.to_shared ? first : second, s.shared, s.shared_wide, s.shared_offset);
  take_address(d, outside, s.global, s.global_wide, s.global_offset);
  size_t next = 2;
  if (is_tensor) {
    const auto& c = outside.items.size() == 2 ? outside.items[1].items : outside.items;
    if (c.size() != s.rank) unsupported("expected {} coordinates", s.rank);
    for (uint32_t i = 0; i < s.rank; ++i) s.coordinate[i] = d.source(c[i], Type::kS32);
  } else {
    s.bytes = d.source(next++, Type::kU32);
  }
  if (s.to_shared) take_address(d, d.operand(next++), s.barrier, s.barrier_wide, s.barrier_offset);
  if (multicast) s.multicast = d.source(next++, Type::kU16);
  d.out().immediate = 0;
  d.out().list = d.begin_list();
  uint32_t words[kShapeWords];
  std::memcpy(words, &s, sizeof s);
  for (const uint32_t word : words) d.append(word);
  d.out().handler = bulk_copy;
}

}  // namespace

void decode_bulk_copy(Decoder& d, Modifiers& m, bool reduces) {
  if (m.take("commit_group")) {
    d.out().handler = commit_group;
  } else if (m.take("wait_group")) {
    // Sources are read, and results visible, at once.
    m.take("read");
    d.out().immediate = static_cast<int64_t>(d.operand(0).bits);
    d.out().handler = wait_group;
  } else if (m.take("prefetch")) {
    m.take_any({"tensor", "L2"});
    m.take_any({"1d", "2d", "3d", "4d", "5d"});
    m.take_any({"L2", "global"});
    m.take_any({"global", "tile"});
    m.take("tile");
    m.take("L2::cache_hint");
    d.out().handler = nothing;
  } else {
    decode_shape(d, m, reduces);
  }
}

}  // namespace sprocket::cuda_simulator
