// wgmma: products of a warpgroup. Each of its warps owns 16 rows of the result, and computes them
// alone.
#include <cstring>

#include "tests/cuda_simulator/access.h"
#include "tests/cuda_simulator/floats.h"
#include "tests/cuda_simulator/fragments.h"
#include "tests/cuda_simulator/tensor_map.h"

namespace sprocket::cuda_simulator {
namespace {

constexpr int kRowsOfWarp = 16, kDepth = 16, kMaxColumns = 256;

// A matrix in shared memory as a descriptor says it.
struct Descriptor {
  explicit Descriptor(uint64_t bits)
      : start((bits & 0x3fff) << 4),
        leading((bits >> 16 & 0x3fff) << 4),
        stride((bits >> 32 & 0x3fff) << 4),
        base_offset(static_cast<uint32_t>(bits >> 49 & 7)),
        swizzle_bits((4 - static_cast<uint32_t>(bits >> 62)) & 3) {}

  uint64_t start, leading, stride;
  uint32_t base_offset;
  uint32_t swizzle_bits;  // 0 none, 1 of 32 bytes, 2 of 64, 3 of 128

  // The address of the element `i` along M or N, and `k`; 16-bit elements in units of 8.
  uint64_t address(int i, int k, bool k_major) const {
    const uint64_t width = uint64_t{1}
                           << swizzle_bits;  // units of 16 bytes in a row of the pattern
    uint64_t offset;
    if (k_major) {
      const uint64_t unit = static_cast<uint64_t>(k / 8);
      offset = static_cast<uint64_t>(i % 8) * width * 16 + static_cast<uint64_t>(i / 8) * stride +
               unit * (swizzle_bits == 0 ? leading : 16) + static_cast<uint64_t>(k % 8) * 2;
    } else if (swizzle_bits == 0) {
      offset = static_cast<uint64_t>(i % 8) * 2 + static_cast<uint64_t>(i / 8) * stride +
               static_cast<uint64_t>(k % 8) * 16 + static_cast<uint64_t>(k / 8) * leading;
    } else {
      const uint64_t unit = static_cast<uint64_t>(i / 8);
      offset = static_cast<uint64_t>(i % 8) * 2 + unit % width * 16 + unit / width * leading +
               static_cast<uint64_t>(k % 8) * width * 16 + static_cast<uint64_t>(k / 8) * stride;
    }
    return swizzled(start + offset, swizzle_bits);
  }
};

template <typename H>
float element(Cta& cta, const Descriptor& descriptor, int i, int k, bool k_major) {
  const uint64_t address = descriptor.address(i, k, k_major);
  const std::byte* at = locate_shared(cta, address, 2);
  if (at == nullptr) {
    throw DeviceError(Fault::kIllegalAddress,
                      fmt::format("wgmma reads shared memory at {:#x}: the block has {}", address,
                                  cta.shared_bytes()));
  }
  H value;
  std::memcpy(&value, at, sizeof value);
  return to_float(value);
}

// flags: columns | A in registers << 16 | A along M << 17 | B along N << 18 | negate A << 19 |
// negate B << 20 | f16 sums << 21. at: 0 descriptor of A, 1 of B, 2 predicate that keeps the sums;
// immediate: its flip. The list: registers of D, then those of A.
template <typename H>
void product(Warp& w, const Instruction& in) {
  Cta& cta = w.cta();
  const int columns = static_cast<int>(in.flags & 0xffff);
  const bool half_sums = in.flags >> 21 & 1;
  const bool a_in_registers = in.flags >> 16 & 1;
  const int sums = columns / 2;  // of a lane
  const uint32_t* d_at = w.list(in);
  const uint32_t* a_at = d_at + (half_sums ? sums / 2 : sums);
  const bool keeps = ((w.predicate(in.at[2]) ^ static_cast<Lanes>(in.immediate)) & 1) != 0;
  const float a_sign = in.flags >> 19 & 1 ? -1.0f : 1.0f,
              b_sign = in.flags >> 20 & 1 ? -1.0f : 1.0f;

  float a[kRowsOfWarp][kDepth];
  if (a_in_registers) {
    for (int lane = 0; lane < kWarpSize; ++lane) {
      for (int i = 0; i < 8; ++i) {
        const Element e = a16_element(lane, i);
        a[e.row][e.column] = a_sign * to_float(w.values<H>(a_at[i / 2])[2 * lane + i % 2]);
      }
    }
  } else {
    const Descriptor descriptor(w.values<uint64_t>(in.at[0])[0]);
    const int first = static_cast<int>(w.index() % 4) * kRowsOfWarp;  // of 64
    for (int i = 0; i < kRowsOfWarp; ++i) {
      for (int k = 0; k < kDepth; ++k) {
        a[i][k] = a_sign * element<H>(cta, descriptor, first + i, k, (in.flags >> 17 & 1) == 0);
      }
    }
  }
  static thread_local float b[kDepth][kMaxColumns];
  static thread_local float c[kRowsOfWarp][kMaxColumns];
  const Descriptor descriptor(w.values<uint64_t>(in.at[1])[0]);
  for (int j = 0; j < columns; ++j) {
    for (int k = 0; k < kDepth; ++k)
      b[k][j] = b_sign * element<H>(cta, descriptor, j, k, (in.flags >> 18 & 1) == 0);
  }
  for (int lane = 0; lane < kWarpSize; ++lane) {
    for (int i = 0; i < sums; ++i) {
      const Element e = c_element(lane, i);
      c[e.row][e.column] = !keeps      ? 0.0f
                           : half_sums ? to_float(w.values<Half>(d_at[i / 2])[2 * lane + i % 2])
                                       : w.values<float>(d_at[i])[lane];
    }
  }
  for (int k = 0; k < kDepth; ++k) {
    for (int i = 0; i < kRowsOfWarp; ++i) {
      for (int j = 0; j < columns; ++j) c[i][j] += a[i][k] * b[k][j];
    }
  }
  for (int lane = 0; lane < kWarpSize; ++lane) {
    for (int i = 0; i < sums; ++i) {
      const Element e = c_element(lane, i);
      if (half_sums) {
        w.values<Half>(d_at[i / 2])[2 * lane + i % 2] = from_float<Half>(c[e.row][e.column]);
      } else {
        w.values<float>(d_at[i])[lane] = c[e.row][e.column];
      }
    }
  }
}

void check_descriptor(Warp& w, uint32_t place) {
  const uint64_t* bits = w.values<uint64_t>(place);
  for (int i = 1; i < kWarpSize; ++i) {
    if (bits[i] != bits[0])
      throw LaneError(Fault::kIllegalInstruction, i, "wgmma descriptors differ within the warp");
  }
  if (Descriptor(bits[0]).base_offset != 0) unsupported("a base offset in a wgmma descriptor");
}

// The product is made when it is waited for, in order; by some schedules at once.
template <typename H>
Step multiply(Warp& w, const Instruction& in, Lanes lanes) {
  if (!w.converged(lanes, kAllLanes)) return Step::kWait;
  w.require_all(lanes);
  if ((in.flags >> 16 & 1) == 0) check_descriptor(w, in.at[0]);
  check_descriptor(w, in.at[1]);
  const Lanes keeps = w.predicate(in.at[2]);
  if (keeps != 0 && keeps != kAllLanes)
    throw LaneError(Fault::kIllegalInstruction, 0, "scale-d differs within the warp");
  w.cta().grid().event();
  if (!w.late_products && !w.cta().grid().prefers_late()) {
    product<H>(w, in);
    w.products.add([] {});
    return Step::kNext;
  }
  // Later products of the same sums have to wait, too. The operands that are no registers of the
  // matrix are read now, as the hardware does.
  w.late_products = true;
  const uint64_t a = in.at[0] == kNowhere ? 0 : w.values<uint64_t>(in.at[0])[0];
  const uint64_t b = w.values<uint64_t>(in.at[1])[0];
  Warp* warp = &w;
  const Instruction* instruction = &in;
  w.products.add([warp, instruction, a, b, keeps] {
    uint64_t a_now[kWarpSize], b_now[kWarpSize];
    const auto exchange = [&](uint32_t at, uint64_t value, uint64_t(&former)[kWarpSize]) {
      uint64_t* place = warp->values<uint64_t>(at);
      std::memcpy(former, place, sizeof former);
      for (int i = 0; i < kWarpSize; ++i) place[i] = value;
    };
    const uint32_t a_at = instruction->at[0];
    if (a_at != kNowhere) exchange(a_at, a, a_now);
    exchange(instruction->at[1], b, b_now);
    const Lanes former = warp->predicate(instruction->at[2]);
    warp->predicate(instruction->at[2]) = keeps;
    product<H>(*warp, *instruction);
    warp->predicate(instruction->at[2]) = former;
    std::memcpy(warp->values<uint64_t>(instruction->at[1]), b_now, sizeof b_now);
    if (a_at != kNowhere) std::memcpy(warp->values<uint64_t>(a_at), a_now, sizeof a_now);
  });
  return Step::kNext;
}

void decode_product(Decoder& d, Modifiers& m) {
  if (!m.take("sync") || !m.take("aligned")) m.fail();
  std::string_view shape;
  static constexpr std::string_view kShapes[] = {
      "m64n8k16",   "m64n16k16",  "m64n24k16",  "m64n32k16",  "m64n40k16",  "m64n48k16",
      "m64n56k16",  "m64n64k16",  "m64n72k16",  "m64n80k16",  "m64n88k16",  "m64n96k16",
      "m64n104k16", "m64n112k16", "m64n120k16", "m64n128k16", "m64n136k16", "m64n144k16",
      "m64n152k16", "m64n160k16", "m64n168k16", "m64n176k16", "m64n184k16", "m64n192k16",
      "m64n200k16", "m64n208k16", "m64n216k16", "m64n224k16", "m64n232k16", "m64n240k16",
      "m64n248k16", "m64n256k16"};
  uint32_t columns = 0;
  for (size_t i = 0; i < std::size(kShapes); ++i) {
    if (m.take(kShapes[i])) columns = static_cast<uint32_t>(8 * (i + 1));
  }
  if (columns == 0) m.fail();
  const Type sum = m.type(), a = m.type(), b = m.type();
  if (a != b || (a != Type::kF16 && a != Type::kBf16)) m.fail();
  const bool half_sums = sum == Type::kF16;
  if (!half_sums && sum != Type::kF32) m.fail();
  d.out().list = d.begin_list();
  for (const Operand& item : d.operand(0).items) d.append(d.destination(item, Type::kB32));
  if (d.operand(0).items.size() != columns / (half_sums ? 4 : 2))
    unsupported("expected {} sums", columns / 2);
  const bool a_in_registers = d.operand(1).kind == Operand::Kind::kVector;
  if (a_in_registers) {
    if (d.operand(1).items.size() != 4) unsupported("expected four registers of A");
    for (const Operand& item : d.operand(1).items) d.append(d.source(item, Type::kB32));
  } else {
    d.out().at[0] = d.source(1, Type::kB64);
  }
  d.out().at[1] = d.source(2, Type::kB64);
  Lanes flip;
  d.out().at[2] = d.predicate(d.operand(3), flip);
  d.out().immediate = flip;
  const auto immediate = [&](size_t i) { return static_cast<int64_t>(d.operand(i).bits); };
  const bool negate_a = immediate(4) < 0, negate_b = immediate(5) < 0;
  const bool a_along_m = !a_in_registers && immediate(6) != 0;
  const bool b_along_n = immediate(a_in_registers ? 6 : 7) != 0;
  d.out().flags = columns | (a_in_registers ? 1u << 16 : 0) | (a_along_m ? 1u << 17 : 0) |
                  (b_along_n ? 1u << 18 : 0) | (negate_a ? 1u << 19 : 0) |
                  (negate_b ? 1u << 20 : 0) | (half_sums ? 1u << 21 : 0);
  d.out().handler = a == Type::kF16 ? multiply<Half> : multiply<Bfloat>;
}

Step commit_group(Warp& w, const Instruction&, Lanes lanes) {
  if (!w.converged(lanes, kAllLanes)) return Step::kWait;
  w.require_all(lanes);
  w.products.commit();
  return Step::kNext;
}

Step wait_group(Warp& w, const Instruction& in, Lanes lanes) {
  if (!w.converged(lanes, kAllLanes)) return Step::kWait;
  w.require_all(lanes);
  w.products.wait(static_cast<uint64_t>(in.immediate));
  if (w.products.empty()) w.late_products = false;
  w.cta().grid().event();
  return Step::kNext;
}

Step fence(Warp& w, const Instruction&, Lanes lanes) {
  if (!w.converged(lanes, kAllLanes)) return Step::kWait;
  w.require_all(lanes);
  return Step::kNext;
}

void decode_wgmma(Decoder& d, Modifiers& m) {
  if (m.take("mma_async")) return decode_product(d, m);
  const bool fences = m.take("fence"), commits = m.take("commit_group"),
             waits = m.take("wait_group");
  if (!m.take("sync") || !m.take("aligned")) m.fail();
  if (waits) d.out().immediate = static_cast<int64_t>(d.operand(0).bits);
  d.out().handler = fences ? fence : commits ? commit_group : waits ? wait_group : nullptr;
  if (d.out().handler == nullptr) m.fail();
}

}  // namespace

std::vector<DecodeEntry> warpgroup_instructions() { return {{"wgmma", decode_wgmma}}; }

}  // namespace sprocket::cuda_simulator
