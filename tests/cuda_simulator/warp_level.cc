// Exchange between the lanes of a warp: shfl, vote, match, redux, activemask, elect.
#include "tests/cuda_simulator/typed.h"

namespace sprocket::cuda_simulator {
namespace {

// The members must all be here; returns false if the lanes have to wait for others.
bool all_here(Warp& w, uint32_t mask_at, Lanes lanes, Lanes& members) {
  members = w.values<uint32_t>(mask_at)[__builtin_ctz(lanes)];
  for_each_lane(lanes, [&](int i) {
    if (w.values<uint32_t>(mask_at)[i] != members) {
      throw LaneError(Fault::kIllegalInstruction, i, "the lanes do not agree on the member mask");
    }
  });
  return w.converged(lanes, members);
}

enum class Shuffle : uint32_t { kUp, kDown, kButterfly, kIndex };

// at: 0 result, 1 source, 2 lane, 3 clamp and segment, 4 members; immediate: the predicate's place.
Step shuffle(Warp& w, const Instruction& in, Lanes lanes) {
  Lanes members;
  if (!all_here(w, in.at[4], lanes, members)) return Step::kWait;
  const uint32_t* a = w.values<uint32_t>(in.at[1]);
  const uint32_t* b = w.values<uint32_t>(in.at[2]);
  const uint32_t* c = w.values<uint32_t>(in.at[3]);
  uint32_t result[kWarpSize];
  Lanes valid = 0;
  for_each_lane(lanes, [&](int i) {
    const int lane = static_cast<int>(b[i] & 31), clamp = static_cast<int>(c[i] & 31);
    const int segment = static_cast<int>(c[i] >> 8 & 31);
    const int last = (i & segment) | (clamp & ~segment);
    const int first = i & segment;
    int from = i;
    bool ok = false;
    switch (static_cast<Shuffle>(in.flags)) {
      case Shuffle::kUp:
        from = i - lane;
        ok = from >= last;
        break;
      case Shuffle::kDown:
        from = i + lane;
        ok = from <= last;
        break;
      case Shuffle::kButterfly:
        from = i ^ lane;
        ok = from <= last;
        break;
      case Shuffle::kIndex:
        from = first | (lane & ~segment);
        ok = from <= last;
        break;
    }
    if (!ok) from = i;
    if (!(lanes >> from & 1)) {
      throw LaneError(Fault::kIllegalInstruction, i,
                      fmt::format("a shuffle reads lane {}, which does not take part", from));
    }
    valid |= Lanes{ok} << i;
    result[i] = a[from];
  });
  for_each_lane(lanes, [&](int i) { w.values<uint32_t>(in.at[0])[i] = result[i]; });
  w.set_predicate(static_cast<uint32_t>(in.immediate), lanes, valid);
  return Step::kNext;
}

void decode_shfl(Decoder& d, Modifiers& m) {
  if (!m.take("sync")) m.fail();
  const std::string_view mode = m.take_any({"up", "down", "bfly", "idx"});
  if (mode.empty()) m.fail();
  d.out().flags = static_cast<uint32_t>(mode == "up"     ? Shuffle::kUp
                                        : mode == "down" ? Shuffle::kDown
                                        : mode == "bfly" ? Shuffle::kButterfly
                                                         : Shuffle::kIndex);
  m.type();
  place_operands(d, Type::kB32, 4);
  d.out().immediate = d.paired_predicate(d.operand(0));
  d.out().handler = shuffle;
}

enum class Vote : uint32_t { kAll, kAny, kUniform, kBallot };

// at: 0 result, 1 predicate, 2 members; immediate: flip of the predicate.
Step vote(Warp& w, const Instruction& in, Lanes lanes) {
  Lanes members;
  if (!all_here(w, in.at[2], lanes, members)) return Step::kWait;
  const Lanes votes = (w.predicate(in.at[1]) ^ static_cast<Lanes>(in.immediate)) & lanes;
  const bool all = votes == lanes, any = votes != 0;
  switch (static_cast<Vote>(in.flags)) {
    case Vote::kAll:
      w.set_predicate(in.at[0], lanes, all ? kAllLanes : 0);
      break;
    case Vote::kAny:
      w.set_predicate(in.at[0], lanes, any ? kAllLanes : 0);
      break;
    case Vote::kUniform:
      w.set_predicate(in.at[0], lanes, all || !any ? kAllLanes : 0);
      break;
    case Vote::kBallot:
      assign(w.values<uint32_t>(in.at[0]), lanes, [&](int) { return votes; });
      break;
  }
  return Step::kNext;
}

void decode_vote(Decoder& d, Modifiers& m) {
  if (!m.take("sync")) m.fail();
  const std::string_view mode = m.take_any({"all", "any", "uni", "ballot"});
  if (mode.empty()) m.fail();
  d.out().flags = static_cast<uint32_t>(mode == "all"   ? Vote::kAll
                                        : mode == "any" ? Vote::kAny
                                        : mode == "uni" ? Vote::kUniform
                                                        : Vote::kBallot);
  d.out().at[0] = d.destination(0, m.type());
  Lanes flip;
  d.out().at[1] = d.predicate(d.operand(1), flip);
  d.out().immediate = flip;
  d.out().at[2] = d.source(2, Type::kU32);
  d.out().handler = vote;
}

// at: 0 result, 1 value, 2 members, 3 predicate of match.all.
template <typename T, bool kAll>
Step match(Warp& w, const Instruction& in, Lanes lanes) {
  Lanes members;
  if (!all_here(w, in.at[2], lanes, members)) return Step::kWait;
  const T* a = w.values<T>(in.at[1]);
  uint32_t result[kWarpSize] = {};
  bool same = true;
  for_each_lane(lanes, [&](int i) {
    for_each_lane(lanes, [&](int j) { result[i] |= Lanes{a[i] == a[j]} << j; });
    same = same && result[i] == lanes;
  });
  if (kAll) w.set_predicate(in.at[3], lanes, same ? kAllLanes : 0);
  assign(w.values<uint32_t>(in.at[0]), lanes,
         [&](int i) { return kAll ? (same ? lanes : 0) : result[i]; });
  return Step::kNext;
}

void decode_match(Decoder& d, Modifiers& m) {
  const bool all = m.take("all");
  if (!all && !m.take("any")) m.fail();
  if (!m.take("sync")) m.fail();
  const Type type = m.type();
  d.out().at[0] = d.destination(0, Type::kB32);
  d.out().at[1] = d.source(1, type);
  d.out().at[2] = d.source(2, Type::kU32);
  d.out().at[3] = d.paired_predicate(d.operand(0));
  d.out().handler = type_bytes(type) == 8 ? (all ? match<uint64_t, true> : match<uint64_t, false>)
                                          : (all ? match<uint32_t, true> : match<uint32_t, false>);
}

enum class Reduce : uint32_t { kAdd, kMin, kMax, kAnd, kOr, kXor };

template <typename T>
Step reduce(Warp& w, const Instruction& in, Lanes lanes) {
  Lanes members;
  if (!all_here(w, in.at[2], lanes, members)) return Step::kWait;
  const T* a = w.values<T>(in.at[1]);
  T result = a[__builtin_ctz(lanes)];
  for_each_lane(lanes & (lanes - 1), [&](int i) {
    switch (static_cast<Reduce>(in.flags)) {
      case Reduce::kAdd:
        result = static_cast<T>(uint32_t(result) + uint32_t(a[i]));
        break;
      case Reduce::kMin:
        result = std::min(result, a[i]);
        break;
      case Reduce::kMax:
        result = std::max(result, a[i]);
        break;
      case Reduce::kAnd:
        result &= a[i];
        break;
      case Reduce::kOr:
        result |= a[i];
        break;
      case Reduce::kXor:
        result ^= a[i];
        break;
    }
  });
  assign(w.values<T>(in.at[0]), lanes, [&](int) { return result; });
  return Step::kNext;
}

void decode_redux(Decoder& d, Modifiers& m) {
  if (!m.take("sync")) m.fail();
  const std::string_view op = m.take_any({"add", "min", "max", "and", "or", "xor"});
  if (op.empty()) m.fail();
  d.out().flags = static_cast<uint32_t>(op == "add"   ? Reduce::kAdd
                                        : op == "min" ? Reduce::kMin
                                        : op == "max" ? Reduce::kMax
                                        : op == "and" ? Reduce::kAnd
                                        : op == "or"  ? Reduce::kOr
                                                      : Reduce::kXor);
  const Type type = m.type();
  if (type_bytes(type) != 4 || is_float(type)) m.fail();
  place_operands(d, type, 1);
  d.out().at[2] = d.source(2, Type::kU32);
  d.out().handler = is_signed(type) ? reduce<int32_t> : reduce<uint32_t>;
}

void decode_activemask(Decoder& d, Modifiers& m) {
  m.type();
  d.out().at[0] = d.destination(0, Type::kB32);
  d.out().handler = [](Warp& w, const Instruction& in, Lanes lanes) {
    assign(w.values<uint32_t>(in.at[0]), lanes, [&](int) { return lanes; });
    return Step::kNext;
  };
}

// The lowest member is the leader.
Step elect(Warp& w, const Instruction& in, Lanes lanes) {
  Lanes members;
  if (!all_here(w, in.at[1], lanes, members)) return Step::kWait;
  const auto leader = static_cast<uint32_t>(__builtin_ctz(lanes));
  assign(w.values<uint32_t>(in.at[0]), lanes, [&](int) { return leader; });
  w.set_predicate(in.at[2], lanes, Lanes{1} << leader);
  return Step::kNext;
}

void decode_elect(Decoder& d, Modifiers& m) {
  if (!m.take("sync")) m.fail();
  d.out().at[0] = d.destination(0, Type::kB32);
  d.out().at[1] = d.source(1, Type::kU32);
  d.out().at[2] = d.paired_predicate(d.operand(0));
  d.out().handler = elect;
}

}  // namespace

std::vector<DecodeEntry> warp_instructions() {
  return {{"shfl", decode_shfl},
          {"vote", decode_vote},
          {"match", decode_match},
          {"redux", decode_redux},
          {"activemask", decode_activemask},
          {"elect", decode_elect}};
}

}  // namespace sprocket::cuda_simulator
