#include "tests/cuda_simulator/mbarrier.h"

#include <cstring>

#include "tests/cuda_simulator/access.h"

namespace sprocket::cuda_simulator {
namespace {

// mark : 4, phase : 1, bytes : 21 (biased), expected : 19, pending : 19.
constexpr uint64_t kMark = 0x5;
constexpr int32_t kBias = 1 << 20;
constexpr uint32_t kMaxCount = (1u << 19) - 1;

uint64_t pack(uint32_t pending, uint32_t expected, int32_t bytes, uint32_t phase) {
  return kMark << 60 | uint64_t{phase} << 59 | static_cast<uint64_t>(bytes + kBias) << 38 |
         uint64_t{expected} << 19 | pending;
}

}  // namespace

void Mbarrier::initialise(uint32_t count) {
  if (count == 0 || count > kMaxCount) {
    throw DeviceError(Fault::kIllegalInstruction,
                      fmt::format("an mbarrier for {} arrivals", count));
  }
  store({count, count, 0, 0});
}

void Mbarrier::invalidate() {
  load();
  std::memset(at_, 0xff, 8);
}

Mbarrier::State Mbarrier::load() const {
  const uint64_t bits = state();
  return {static_cast<uint32_t>(bits & kMaxCount), static_cast<uint32_t>(bits >> 19 & kMaxCount),
          static_cast<uint32_t>(bits >> 59 & 1),
          static_cast<int32_t>(bits >> 38 & 0x1fffff) - kBias};
}

uint64_t Mbarrier::state() const {
  uint64_t bits;
  std::memcpy(&bits, at_, sizeof bits);
  if (bits >> 60 != kMark)
    throw DeviceError(Fault::kIllegalInstruction, "an mbarrier that is not initialised");
  return bits;
}

// A phase is complete when nobody is missing and no bytes are to come.
void Mbarrier::store(State s) {
  if (s.pending == 0 && s.bytes == 0) {
    s.pending = s.expected;
    s.phase ^= 1;
  }
  const uint64_t bits = pack(s.pending, s.expected, s.bytes, s.phase);
  std::memcpy(at_, &bits, sizeof bits);
}

void Mbarrier::arrive(uint32_t count) {
  State s = load();
  if (count > s.pending) {
    throw DeviceError(
        Fault::kIllegalInstruction,
        fmt::format("{} arrive at an mbarrier that expects {} more", count, s.pending));
  }
  s.pending -= count;
  store(s);
}

void Mbarrier::drop(uint32_t count) {
  State s = load();
  if (count > s.expected)
    throw DeviceError(Fault::kIllegalInstruction, "more drop out of an mbarrier than it expects");
  s.expected -= count;
  const uint64_t bits = pack(s.pending, s.expected, s.bytes, s.phase);
  std::memcpy(at_, &bits, sizeof bits);
  arrive(count);
}

void Mbarrier::expect_arrivals(uint32_t count) {
  State s = load();
  s.pending += count;
  store(s);
}

void Mbarrier::expect_bytes(uint32_t bytes) {
  State s = load();
  s.bytes += static_cast<int32_t>(bytes);
  if (s.bytes >= kBias)
    throw DeviceError(Fault::kIllegalInstruction, "an mbarrier expects 2^20 bytes or more");
  // Bytes that came early may be all that was missing.
  store(s);
}

void Mbarrier::complete_bytes(uint32_t bytes) {
  State s = load();
  s.bytes -= static_cast<int32_t>(bytes);
  if (s.bytes < -kBias)
    throw DeviceError(Fault::kIllegalInstruction, "an mbarrier got 2^20 bytes too many");
  store(s);
}

bool Mbarrier::passed(uint64_t token) const { return (state() >> 59 & 1) != (token >> 59 & 1); }
bool Mbarrier::passed_parity(uint32_t parity) const { return (state() >> 59 & 1) != (parity & 1); }

namespace {

enum class Action : uint32_t { kInit, kInvalidate, kArrive, kDrop, kExpect, kComplete };

// flags: action | narrow base << 8 | expects bytes << 9 | returns a token << 10 | space << 16.
// at: 0 token, 1 address, 2 count or bytes.
Step act(Warp& w, const Instruction& in, Lanes lanes) {
  const AddressOperand address{in.at[1], (in.flags >> 8 & 1) != 0, in.immediate};
  const auto space = static_cast<Space>(in.flags >> 16);
  const auto action = static_cast<Action>(in.flags & 0xff);
  w.cta().grid().event();
  for_each_lane(lanes, [&](int i) {
    std::byte* at = locate(w, space, i, address.of(w, i), 8, 8);
    Mbarrier barrier(at);
    const uint32_t amount = in.at[2] == kNowhere ? 1 : w.values<uint32_t>(in.at[2])[i];
    switch (action) {
      case Action::kInit:
        barrier.initialise(amount);
        break;
      case Action::kInvalidate:
        barrier.invalidate();
        break;
      case Action::kExpect:
        barrier.expect_bytes(amount);
        break;
      case Action::kComplete:
        barrier.complete_bytes(amount);
        break;
      case Action::kArrive:
      case Action::kDrop: {
        if (in.flags >> 10 & 1) w.values<uint64_t>(in.at[0])[i] = barrier.state();
        uint32_t arrivals = amount;
        if (in.flags >> 9 & 1) {
          barrier.expect_bytes(amount);
          arrivals = 1;
        }
        if (action == Action::kArrive)
          barrier.arrive(arrivals);
        else
          barrier.drop(arrivals);
        break;
      }
    }
  });
  // Those who wait go first: what this warp has yet to do, it does too late.
  const bool arrives = action == Action::kArrive || action == Action::kDrop;
  return arrives && w.cta().grid().prefers_late() ? Step::kGiveWay : Step::kNext;
}

// at: 0 predicate, 1 address, 2 token or parity; flags: narrow << 8 | parity << 9 | may wait << 10.
Step test_phase(Warp& w, const Instruction& in, Lanes lanes) {
  const AddressOperand address{in.at[1], (in.flags >> 8 & 1) != 0, in.immediate};
  const auto space = static_cast<Space>(in.flags >> 16);
  Lanes bits = 0;
  for_each_lane(lanes, [&](int i) {
    const Mbarrier barrier(locate(w, space, i, address.of(w, i), 8, 8));
    const bool passed = in.flags >> 9 & 1 ? barrier.passed_parity(w.values<uint32_t>(in.at[2])[i])
                                          : barrier.passed(w.values<uint64_t>(in.at[2])[i]);
    bits |= Lanes{passed} << i;
  });
  w.set_predicate(in.at[0], lanes, bits);
  return (bits & lanes) == lanes ? Step::kNext : Step::kYield;
}

void decode_mbarrier(Decoder& d, Modifiers& m) {
  const bool tests = m.take("test_wait") || m.take("try_wait");
  Action action = Action::kInit;
  bool arrives = false;
  if (!tests) {
    if (m.take("init"))
      action = Action::kInit;
    else if (m.take("inval"))
      action = Action::kInvalidate;
    else if (m.take("arrive"))
      action = Action::kArrive, arrives = true;
    else if (m.take("arrive_drop"))
      action = Action::kDrop, arrives = true;
    else if (m.take("expect_tx"))
      action = Action::kExpect;
    else if (m.take("complete_tx"))
      action = Action::kComplete;
    else
      m.fail();
  }
  const bool expects = arrives && m.take("expect_tx");
  if (m.take("noComplete")) m.fail();
  const bool parity = m.take("parity");
  m.take_any({"release", "acquire", "relaxed"});
  m.take_any({"cta", "cluster"});
  const Space space = space_named(m);
  if (m.type() != Type::kB64) m.fail();
  // A token is optional when the barrier is another CTA's.
  const bool token = arrives && d.operand(0).kind != Operand::Kind::kAddress;
  const size_t first = token || tests ? 1 : 0;
  unsigned width;
  d.out().at[1] = d.address(d.operand(first), width);
  d.out().flags = static_cast<uint32_t>(action) | (width == 4 ? 1u << 8 : 0) |
                  static_cast<uint32_t>(space) << 16;
  if (tests) {
    d.out().at[0] = d.destination(0, Type::kPredicate);
    d.out().at[2] = parity ? d.source(2, Type::kU32) : d.source(2, Type::kB64);
    if (parity) d.out().flags |= 1u << 9;
    d.out().handler = test_phase;
    return;
  }
  if (token && d.operand(0).kind != Operand::Kind::kSink) {
    d.out().at[0] = d.destination(0, Type::kB64);
    d.out().flags |= 1u << 10;
  }
  if (expects) d.out().flags |= 1u << 9;
  if (d.operands() > first + 1) d.out().at[2] = d.source(first + 1, Type::kU32);
  if (expects && d.operands() <= first + 1) m.fail();
  d.out().handler = act;
}

}  // namespace

std::vector<DecodeEntry> barrier_instructions() { return {{"mbarrier", decode_mbarrier}}; }

}  // namespace sprocket::cuda_simulator
