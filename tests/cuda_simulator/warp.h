// A warp: lanes in lockstep, in groups of one place each.
//
// The group with the smallest place runs, and groups that meet merge: code that the compiler laid
// out reconverges without being told where.
#pragma once

#include <cstring>
#include <vector>

#include "tests/cuda_simulator/async.h"
#include "tests/cuda_simulator/instruction.h"
#include "tests/cuda_simulator/memory.h"

namespace sprocket::cuda_simulator {

class Cta;
struct Program;

// Stores f(lane) in the lanes given.
template <typename T, typename F>
inline void assign(T* to, Lanes lanes, F f) {
  T values[kWarpSize];
  for (int i = 0; i < kWarpSize; ++i) values[i] = f(i);
  if (lanes == kAllLanes) {
    std::memcpy(to, values, sizeof values);
  } else {
    for (int i = 0; i < kWarpSize; ++i) to[i] = (lanes >> i & 1) ? values[i] : to[i];
  }
}

// Calls f(lane) for the lanes given, ascending.
template <typename F>
inline void for_each_lane(Lanes lanes, F f) {
  for (; lanes != 0; lanes &= lanes - 1) f(__builtin_ctz(lanes));
}

class Warp {
 public:
  Warp(Cta& cta, const Program& program, unsigned index, Lanes live);

  enum class Outcome { kDone, kBlocked, kYielded, kBudget };
  // Executes at most `budget` instructions.
  Outcome run(uint64_t budget);

  // --- For handlers.
  template <typename T>
  T* values(uint32_t at) {
    return reinterpret_cast<T*>(registers_.data() + at);
  }
  Lanes& predicate(uint32_t at) { return *reinterpret_cast<Lanes*>(registers_.data() + at); }
  void set_predicate(uint32_t at, Lanes lanes, Lanes bits) {
    if (at == kNowhere) return;
    Lanes& p = predicate(at);
    p = (p & ~lanes) | (bits & lanes);
  }
  const uint32_t* list(const Instruction& in) const;
  std::byte* local(int lane) { return local_.data() + static_cast<size_t>(lane) * local_bytes_; }
  uint32_t local_bytes() const { return local_bytes_; }
  Cta& cta() { return cta_; }
  const Program& program() const { return program_; }
  unsigned index() const { return index_; }
  Lanes active() const { return active_; }
  Lanes live() const { return live_; }
  uint32_t pc() const { return pc_; }

  // Sends active lanes elsewhere; the other active lanes go on with the next instruction.
  void jump(Lanes lanes, uint32_t target);
  void jump_each(Lanes lanes, const uint32_t* targets);
  void exit(Lanes lanes);

  // Whether all live lanes of `members` are at this instruction. Lanes outside of `members` that
  // are there with them are an error.
  bool converged(Lanes lanes, Lanes members) const;

  // The carry flag of each lane.
  Lanes carry = 0;
  // Of barriers: lanes that have arrived at the instruction where they wait, and for which phase.
  Lanes arrived = 0;
  uint64_t phase[kWarpSize] = {};

  // Throws unless all 32 lanes execute this, as .aligned instructions of matrices demand.
  void require_all(Lanes lanes) const;

  // Of each lane.
  CopyGroups copies[kWarpSize];       // cp.async
  CopyGroups bulk_copies[kWarpSize];  // cp.async.bulk
  // Matrix products of the warp: wgmma.mma_async.
  CopyGroups products;
  bool late_products = false;  // some are not made yet
  // The phase of the cluster's barrier at which each lane arrived.
  uint64_t cluster_phase[kWarpSize] = {};

  // What each group of lanes does, for messages.
  std::string describe() const;

 private:
  struct Group {
    uint32_t pc;
    Lanes lanes;
    bool resting;               // waits or has yielded: not to be chosen in this run
    uint32_t after = kNowhere;  // the instruction that yielded, for messages
  };
  bool choose();
  void reconverge();
  void update_limit();
  void rest(Lanes lanes, uint32_t pc);

  Cta& cta_;
  const Program& program_;
  unsigned index_;
  Lanes live_;
  Lanes active_ = 0;
  uint32_t pc_ = 0;
  uint32_t limit_ = kNowhere;  // where the active group may meet another
  std::vector<Group> others_;  // all groups while the warp does not run
  bool interrupted_ = false;
  std::vector<std::byte> registers_;
  uint32_t local_bytes_;
  std::vector<std::byte> local_;
};

}  // namespace sprocket::cuda_simulator
