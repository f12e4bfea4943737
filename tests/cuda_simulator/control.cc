// Branches, calls, exits, barriers of the CTA, and instructions that only let time pass.
#include <cstring>

#include "tests/cuda_simulator/access.h"
#include "tests/cuda_simulator/families.h"
#include "tests/cuda_simulator/typed.h"

namespace sprocket::cuda_simulator {
namespace {

Step branch(Warp& w, const Instruction& in, Lanes lanes) {
  w.jump(lanes, static_cast<uint32_t>(in.immediate));
  return Step::kJumped;
}

void decode_bra(Decoder& d, Modifiers& m) {
  m.take("uni");
  d.branch_to(d.operand(0).name, d.operand(0).scope);
  d.out().handler = branch;
}

// at[0]: the index; flags: how many targets.
Step branch_indexed(Warp& w, const Instruction& in, Lanes lanes) {
  const uint32_t* index = w.values<uint32_t>(in.at[0]);
  const uint32_t* targets = w.list(in);
  uint32_t to[kWarpSize] = {};
  for_each_lane(lanes, [&](int i) {
    if (index[i] >= in.flags) {
      throw LaneError(Fault::kIllegalInstruction, i,
                      fmt::format("branch to target {} of {}", index[i], in.flags));
    }
    to[i] = targets[index[i]];
  });
  w.jump_each(lanes, to);
  return Step::kJumped;
}

void decode_brx(Decoder& d, Modifiers& m) {
  if (!m.take("idx")) m.fail();
  m.take("uni");
  d.out().at[0] = d.source(0, Type::kU32);
  d.out().list = d.begin_list();
  d.branch_table(d.operand(1).name, d.operand(1).scope);
  d.out().flags = d.begin_list() - d.out().list;
  d.out().handler = branch_indexed;
}

Step leave(Warp& w, const Instruction&, Lanes lanes) {
  w.exit(lanes);
  return Step::kJumped;
}

Step return_to_caller(Warp& w, const Instruction& in, Lanes lanes) {
  w.jump_each(lanes, w.values<uint32_t>(in.at[0]));
  return Step::kJumped;
}

void decode_exit(Decoder& d, Modifiers&) { d.out().handler = leave; }

void decode_ret(Decoder& d, Modifiers& m) {
  m.take("uni");
  if (d.in_entry()) return decode_exit(d, m);
  d.out().at[0] = d.return_register();
  d.out().handler = return_to_caller;
}

// The list: for each argument its bytes, its local address here and in the function.
Step call(Warp& w, const Instruction& in, Lanes lanes) {
  const uint32_t* list = w.list(in);
  for_each_lane(lanes, [&](int i) {
    for (uint32_t k = 0; k < in.flags; ++k) {
      std::memcpy(w.local(i) + list[3 * k + 2], w.local(i) + list[3 * k + 1], list[3 * k]);
    }
    w.values<uint32_t>(in.at[0])[i] = w.pc() + 1;
  });
  w.jump(lanes, static_cast<uint32_t>(in.immediate));
  return Step::kJumped;
}

Step copy_results(Warp& w, const Instruction& in, Lanes lanes) {
  const uint32_t* list = w.list(in);
  for_each_lane(lanes, [&](int i) {
    for (uint32_t k = 0; k < in.flags; ++k) {
      std::memcpy(w.local(i) + list[3 * k + 1], w.local(i) + list[3 * k + 2], list[3 * k]);
    }
  });
  return Step::kNext;
}

uint32_t append_copies(Decoder& d, const Function& callee, const Operand& here,
                       const std::vector<Variable>& there) {
  if (here.items.size() != there.size())
    unsupported("{} takes {} arguments", callee.name, there.size());
  for (size_t k = 0; k < there.size(); ++k) {
    d.append(static_cast<uint32_t>(there[k].bytes));
    d.append(static_cast<uint32_t>(d.variable_address(here.items[k].name)));
    d.append(d.local_address(callee, there[k].name));
  }
  return static_cast<uint32_t>(there.size());
}

// call (results), function, (arguments);
void decode_call(Decoder& d, Modifiers& m) {
  m.take("uni");
  const Operand none;
  const bool has_results = d.operand(0).kind == Operand::Kind::kVector;
  const Operand& name = d.operand(has_results ? 1 : 0);
  if (name.kind != Operand::Kind::kVariable)
    unsupported("calls through pointers are not simulated");
  const size_t arguments = has_results ? 2 : 1;
  const Function& callee = d.callee(name.name);
  d.out().at[0] = d.return_register(callee);
  d.out().list = d.begin_list();
  d.out().flags = append_copies(d, callee, d.operands() > arguments ? d.operand(arguments) : none,
                                callee.parameters);
  d.out().handler = call;
  d.emit();
  d.out().list = d.begin_list();
  d.out().flags = append_copies(d, callee, has_results ? d.operand(0) : none, callee.results);
  d.out().handler = copy_results;
}

Step trap(Warp&, const Instruction&, Lanes lanes) {
  throw LaneError(Fault::kTrap, __builtin_ctz(lanes), "trap");
}

void decode_trap(Decoder& d, Modifiers&) { d.out().handler = trap; }

enum class BarrierKind : uint32_t { kSync, kArrive, kPopc, kAnd, kOr };

// flags: kind | aligned << 8 | has a count << 9 | flip of the predicate << 10.
// at: 0 barrier, 1 count, 2 the predicate of a reduction, 3 its result.
Step barrier(Warp& w, const Instruction& in, Lanes lanes) {
  const int first = __builtin_ctz(lanes);
  const uint32_t id = w.values<uint32_t>(in.at[0])[first];
  const uint32_t count = (in.flags >> 9 & 1) ? w.values<uint32_t>(in.at[1])[first] : 0;
  const BarrierKind kind = static_cast<BarrierKind>(in.flags & 0xff);
  const bool aligned = in.flags >> 8 & 1;
  if (id >= 16)
    throw LaneError(Fault::kIllegalInstruction, first, fmt::format("barrier {} of 16", id));
  if (count % kWarpSize != 0) {
    throw LaneError(
        Fault::kIllegalInstruction, first,
        fmt::format("barrier {} expects {} threads: expected a multiple of 32", id, count));
  }
  const bool returns = kind != BarrierKind::kSync && kind != BarrierKind::kArrive;
  if ((w.arrived & lanes) != 0) {
    if (!w.cta().passed(id, w.phase[first])) return Step::kWait;
    w.arrived &= ~lanes;
  } else {
    // Of an aligned barrier, all lanes of a warp arrive together.
    if (aligned && lanes != w.live()) return Step::kWait;
    if (returns) {
      const Lanes votes = (w.predicate(in.at[2]) ^ ((in.flags >> 10 & 1) ? kAllLanes : 0)) & lanes;
      w.cta().vote(id, static_cast<unsigned>(__builtin_popcount(votes)),
                   static_cast<unsigned>(__builtin_popcount(lanes)));
    }
    const unsigned arriving =
        count != 0 && aligned ? kWarpSize : static_cast<unsigned>(__builtin_popcount(lanes));
    const uint64_t phase = w.cta().arrive(id, arriving, count);
    if (kind == BarrierKind::kArrive) return Step::kNext;
    if (!w.cta().passed(id, phase)) {
      w.arrived |= lanes;
      for_each_lane(lanes, [&](int i) { w.phase[i] = phase; });
      return Step::kWait;
    }
  }
  if (returns) {
    const Cta::Reduction result = w.cta().result(id);
    const bool yes = kind == BarrierKind::kAnd ? result.votes == result.ballots : result.votes > 0;
    if (kind == BarrierKind::kPopc) {
      assign(w.values<uint32_t>(in.at[3]), lanes, [&](int) { return result.votes; });
    } else {
      w.set_predicate(in.at[3], lanes, yes ? kAllLanes : 0);
    }
  }
  return Step::kNext;
}

// at[0]: the members.
Step warp_barrier(Warp& w, const Instruction& in, Lanes lanes) {
  const Lanes members = w.values<uint32_t>(in.at[0])[__builtin_ctz(lanes)];
  return w.converged(lanes, members) ? Step::kNext : Step::kWait;
}

void decode_bar(Decoder& d, Modifiers& m) {
  if (m.root() == "bar" && m.take("warp")) {
    if (!m.take("sync")) m.fail();
    d.out().at[0] = d.source(0, Type::kU32);
    d.out().handler = warp_barrier;
    return;
  }
  if (m.root() == "barrier" && m.take("cluster")) return decode_cluster_barrier(d, m);
  m.take("cta");
  BarrierKind kind = BarrierKind::kSync;
  if (m.take("arrive")) {
    kind = BarrierKind::kArrive;
  } else if (m.take("red")) {
    const std::string_view how = m.take_any({"popc", "and", "or"});
    kind = how == "popc" ? BarrierKind::kPopc : how == "and" ? BarrierKind::kAnd : BarrierKind::kOr;
    if (how.empty()) m.fail();
  } else if (!m.take("sync")) {
    m.fail();
  }
  const bool aligned = m.take("aligned") || m.root() == "bar";
  const bool returns = kind != BarrierKind::kSync && kind != BarrierKind::kArrive;
  const size_t first = returns ? 1 : 0;
  d.out().flags = static_cast<uint32_t>(kind) | (aligned ? 1u << 8 : 0);
  d.out().at[0] = d.source(first, Type::kU32);
  const size_t extra = d.operands() - first - 1 - (returns ? 1 : 0);
  if (extra > 0) {
    d.out().at[1] = d.source(first + 1, Type::kU32);
    d.out().flags |= 1u << 9;
  }
  if (returns) {
    m.type();
    Lanes flip;
    d.out().at[2] = d.predicate(d.operand(d.operands() - 1), flip);
    if (flip) d.out().flags |= 1u << 10;
    d.out().at[3] = d.destination(0, kind == BarrierKind::kPopc ? Type::kU32 : Type::kPredicate);
  }
  d.out().handler = barrier;
}

Step pass_time(Warp&, const Instruction&, Lanes) { return Step::kYield; }

void decode_nanosleep(Decoder& d, Modifiers& m) {
  m.type();
  d.out().handler = pass_time;
}

}  // namespace

std::vector<DecodeEntry> control_instructions() {
  return {{"bra", decode_bra},     {"brx", decode_brx},
          {"call", decode_call},   {"ret", decode_ret},
          {"exit", decode_exit},   {"trap", decode_trap},
          {"brkpt", decode_trap},  {"bar", decode_bar},
          {"barrier", decode_bar}, {"nanosleep", decode_nanosleep}};
}

}  // namespace sprocket::cuda_simulator
