// Clusters: their barrier, addresses in another CTA's shared memory; and what Hopper adds for
// control.
#include "tests/cuda_simulator/access.h"
#include "tests/cuda_simulator/families.h"
#include "tests/cuda_simulator/typed.h"

namespace sprocket::cuda_simulator {
namespace {

Step cluster_arrive(Warp& w, const Instruction& in, Lanes lanes) {
  // Of an aligned barrier, all lanes arrive together.
  if ((in.flags & 1) && lanes != w.live()) return Step::kWait;
  const uint64_t phase = w.cta().cluster().arrive(static_cast<unsigned>(__builtin_popcount(lanes)));
  for_each_lane(lanes, [&](int i) { w.cluster_phase[i] = phase; });
  return Step::kNext;
}

Step cluster_wait(Warp& w, const Instruction& in, Lanes lanes) {
  if ((in.flags & 1) && lanes != w.live()) return Step::kWait;
  return w.cta().cluster().passed(w.cluster_phase[__builtin_ctz(lanes)]) ? Step::kNext
                                                                         : Step::kWait;
}

// A shared address, or a generic one of shared memory, in another CTA.
template <typename T>
Step map_address(Warp& w, const Instruction& in, Lanes lanes) {
  const T* a = w.values<T>(in.at[1]);
  const uint32_t* rank = w.values<uint32_t>(in.at[2]);
  T result[kWarpSize] = {};
  for_each_lane(lanes, [&](int i) {
    if (rank[i] >= w.cta().cluster().size()) {
      throw LaneError(
          Fault::kIllegalInstruction, i,
          fmt::format("mapa to CTA {} of a cluster of {}", rank[i], w.cta().cluster().size()));
    }
    constexpr uint64_t kOffsets = (uint64_t{1} << kSharedRankShift) - 1;
    const uint64_t window =
        sizeof(T) == 8 && a[i] >= static_cast<T>(kSharedWindow) ? kSharedWindow : 0;
    const uint64_t offset = (static_cast<uint64_t>(a[i]) - window) & kOffsets;
    result[i] = static_cast<T>(window + ((uint64_t{rank[i]} + 1) << kSharedRankShift) + offset);
  });
  assign(w.values<T>(in.at[0]), lanes, [&](int i) { return result[i]; });
  return Step::kNext;
}

void decode_mapa(Decoder& d, Modifiers& m) {
  space_named(m);
  const Type type = m.type();
  d.out().at[0] = d.destination(0, type);
  d.out().at[1] = d.source(1, type);
  d.out().at[2] = d.source(2, Type::kU32);
  d.out().handler = type_bytes(type) == 8 ? map_address<uint64_t> : map_address<uint32_t>;
}

template <typename T>
Step rank_of_address(Warp& w, const Instruction& in, Lanes lanes) {
  const uint32_t own = w.cta().rank();
  return unary<uint32_t, T>(w, in, lanes, [own](T a) {
    const uint64_t address =
        sizeof(T) == 8 ? static_cast<uint64_t>(a) - kSharedWindow : static_cast<uint64_t>(a);
    const auto rank = static_cast<uint32_t>(address >> kSharedRankShift);
    return rank == 0 ? own : rank - 1;
  });
}

void decode_getctarank(Decoder& d, Modifiers& m) {
  space_named(m);
  const Type type = m.type();
  d.out().at[0] = d.destination(0, Type::kU32);
  d.out().at[1] = d.source(1, type);
  d.out().handler = type_bytes(type) == 8 ? rank_of_address<uint64_t> : rank_of_address<uint32_t>;
}

Step nothing(Warp&, const Instruction&, Lanes) { return Step::kNext; }

// Registers are not counted.
void decode_setmaxnreg(Decoder& d, Modifiers& m) {
  if (m.take_any({"inc", "dec"}).empty() || !m.take("sync") || !m.take("aligned")) m.fail();
  m.type();
  const uint64_t count = d.operand(0).bits;
  if (count < 24 || count > 256 || count % 8 != 0) unsupported("setmaxnreg {}", count);
  d.out().handler = nothing;
}

// The grid before this one is complete.
void decode_griddepcontrol(Decoder& d, Modifiers& m) {
  if (m.take_any({"launch_dependents", "wait"}).empty()) m.fail();
  d.out().handler = nothing;
}

}  // namespace

void decode_cluster_barrier(Decoder& d, Modifiers& m) {
  const bool arrives = m.take("arrive");
  if (!arrives && !m.take("wait")) m.fail();
  m.take_any({"release", "acquire", "relaxed"});
  d.out().flags = m.take("aligned");
  d.out().handler = arrives ? cluster_arrive : cluster_wait;
}

std::vector<DecodeEntry> cluster_instructions() {
  return {{"mapa", decode_mapa},
          {"getctarank", decode_getctarank},
          {"setmaxnreg", decode_setmaxnreg},
          {"griddepcontrol", decode_griddepcontrol}};
}

}  // namespace sprocket::cuda_simulator
