// cp.async: copies of 4, 8 or 16 bytes from global to shared memory, in groups.
#include <algorithm>
#include <cstring>

#include "tests/cuda_simulator/access.h"
#include "tests/cuda_simulator/families.h"
#include "tests/cuda_simulator/mbarrier.h"

namespace sprocket::cuda_simulator {
namespace {

// at: 0 destination, 1 source, 2 bytes of the source (or nowhere), 3 the predicate that ignores the
// source. flags: bytes | narrow destination << 8 | flip of the predicate << 9; immediate: offset of
// the destination, the list's first entry that of the source.
Step copy(Warp& w, const Instruction& in, Lanes lanes) {
  const uint32_t bytes = in.flags & 0xff;
  const AddressOperand to{in.at[0], (in.flags >> 8 & 1) != 0, in.immediate};
  const AddressOperand from{in.at[1], false, static_cast<int32_t>(w.list(in)[0])};
  const uint32_t* sizes = in.at[2] == kNowhere ? nullptr : w.values<uint32_t>(in.at[2]);
  const Lanes ignored =
      in.at[3] == kNowhere ? 0 : w.predicate(in.at[3]) ^ ((in.flags >> 9 & 1) ? kAllLanes : 0);
  for_each_lane(lanes, [&](int i) {
    uint32_t valid = sizes != nullptr ? sizes[i] : bytes;
    if (valid > bytes) {
      throw LaneError(Fault::kIllegalInstruction, i,
                      fmt::format("cp.async of {} bytes with {} of the source", bytes, valid));
    }
    if (ignored >> i & 1) valid = 0;
    std::byte* target = locate(w, Space::kShared, i, to.of(w, i), bytes, bytes);
    const std::byte* source = nullptr;
    const uint64_t address = from.of(w, i);
    if (address % bytes != 0) misaligned(i, address, bytes);
    if (valid > 0) source = locate(w, Space::kGlobal, i, address, valid, 1);
    std::memset(target, 0xff, bytes);
    w.copies[i].add([target, source, valid, bytes] {
      if (valid > 0) std::memcpy(target, source, valid);
      std::memset(target + valid, 0, bytes - valid);
    });
  });
  return Step::kNext;
}

void decode_cp_async(Decoder& d, Modifiers& m) {
  m.take_any({"ca", "cg"});
  if (!m.take("shared") && !m.take("shared::cta")) m.fail();
  if (!m.take("global")) m.fail();
  const bool hinted = m.take("L2::cache_hint");
  m.take_any({"L2::64B", "L2::128B", "L2::256B"});
  const auto bytes = static_cast<uint32_t>(d.operand(2).bits);
  if (bytes != 4 && bytes != 8 && bytes != 16) m.fail();
  unsigned width;
  d.out().at[1] = d.address(d.operand(1), width);
  d.out().list = d.begin_list();
  d.append(static_cast<uint32_t>(static_cast<int32_t>(d.out().immediate)));
  d.out().at[0] = d.address(d.operand(0), width);
  d.out().flags = bytes | (width == 4 ? 1u << 8 : 0);
  const size_t extra = d.operands() - 3 - (hinted ? 1 : 0);
  if (extra > 0) {
    const Operand& third = d.operand(3);
    if (third.kind == Operand::Kind::kRegister && d.is_predicate(third)) {
      Lanes flip;
      d.out().at[3] = d.predicate(third, flip);
      if (flip) d.out().flags |= 1u << 9;
    } else {
      d.out().at[2] = d.source(third, Type::kU32);
    }
  }
  d.out().handler = copy;
}

Step commit_group(Warp& w, const Instruction&, Lanes lanes) {
  for_each_lane(lanes, [&](int i) { w.copies[i].commit(); });
  return Step::kNext;
}

Step wait_group(Warp& w, const Instruction& in, Lanes lanes) {
  w.cta().grid().event();
  for_each_lane(lanes, [&](int i) { w.copies[i].wait(static_cast<uint64_t>(in.immediate)); });
  return Step::kNext;
}

Step wait_all(Warp& w, const Instruction&, Lanes lanes) {
  w.cta().grid().event();
  for_each_lane(lanes, [&](int i) { w.copies[i].wait_all(); });
  return Step::kNext;
}

// The arrival happens when all earlier copies of the thread are complete. flags: narrow | no
// increment << 1.
Step arrive_after_copies(Warp& w, const Instruction& in, Lanes lanes) {
  const AddressOperand address{in.at[0], (in.flags & 1) != 0, in.immediate};
  for_each_lane(lanes, [&](int i) {
    std::byte* barrier = locate(w, static_cast<Space>(in.flags >> 8), i, address.of(w, i), 8, 8);
    if ((in.flags >> 1 & 1) == 0) Mbarrier(barrier).expect_arrivals(1);
    Warp* warp = &w;
    w.cta().grid().defer([warp, i, barrier] {
      warp->copies[i].wait_all();
      Mbarrier(barrier).arrive(1);
    });
  });
  return Step::kNext;
}

void decode_cp(Decoder& d, Modifiers& m) {
  if (m.take("reduce")) {
    if (!m.take("async") || !m.take("bulk")) m.fail();
    return decode_bulk_copy(d, m, true);
  }
  if (!m.take("async")) m.fail();
  if (m.take("bulk")) return decode_bulk_copy(d, m, false);
  if (m.take("commit_group")) {
    d.out().handler = commit_group;
  } else if (m.take("wait_group")) {
    d.out().immediate = static_cast<int64_t>(d.operand(0).bits);
    d.out().handler = wait_group;
  } else if (m.take("wait_all")) {
    d.out().handler = wait_all;
  } else if (m.take("mbarrier")) {
    if (!m.take("arrive")) m.fail();
    d.out().flags = m.take("noinc") ? 2 : 0;
    const Space space = space_named(m);
    if (m.type() != Type::kB64) m.fail();
    unsigned width;
    d.out().at[0] = d.address(d.operand(0), width);
    d.out().flags |= (width == 4 ? 1u : 0) | static_cast<uint32_t>(space) << 8;
    d.out().handler = arrive_after_copies;
  } else {
    decode_cp_async(d, m);
  }
}

}  // namespace

std::vector<DecodeEntry> copy_instructions() { return {{"cp", decode_cp}}; }

}  // namespace sprocket::cuda_simulator
