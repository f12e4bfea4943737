#include "tests/cuda_simulator/warp.h"

#include <algorithm>

#include "tests/cuda_simulator/error.h"
#include "tests/cuda_simulator/grid.h"
#include "tests/cuda_simulator/program.h"

namespace sprocket::cuda_simulator {

Warp::Warp(Cta& cta, const Program& program, unsigned index, Lanes live)
    : cta_(cta),
      program_(program),
      index_(index),
      live_(live),
      registers_(program.register_bytes),
      local_bytes_(program.local_bytes),
      local_(static_cast<size_t>(program.local_bytes) * kWarpSize, std::byte{0xff}) {
  others_.push_back({0, live, false});
  predicate(0) = kAllLanes;
  for (const Program::Constant& c : program.constants) {
    for (int i = 0; i < kWarpSize; ++i) {
      std::memcpy(registers_.data() + c.at + i * c.bytes, &c.value, c.bytes);
    }
  }
  for (const Program::SpecialRegister& s : program.specials) {
    for (int i = 0; i < kWarpSize; ++i) {
      const uint64_t value = cta.special(s.special, index * kWarpSize + i);
      std::memcpy(registers_.data() + s.at + i * s.bytes, &value, s.bytes);
    }
  }
}

const uint32_t* Warp::list(const Instruction& in) const { return program_.list.data() + in.list; }

void Warp::update_limit() {
  limit_ = kNowhere;
  for (const Group& g : others_) {
    if (!g.resting || g.pc >= pc_) limit_ = std::min(limit_, g.pc);
  }
}

bool Warp::choose() {
  active_ = 0;
  auto best = others_.end();
  for (auto g = others_.begin(); g != others_.end(); ++g) {
    if (!g->resting && (best == others_.end() || g->pc < best->pc)) best = g;
  }
  if (best == others_.end()) return false;
  pc_ = best->pc;
  reconverge();
  return true;
}

// Joins all groups at the active one's place, and gives way to one that is behind.
void Warp::reconverge() {
  const auto meets = [this](const Group& g) {
    if (g.pc == pc_) active_ |= g.lanes;
    return g.pc == pc_;
  };
  others_.erase(std::remove_if(others_.begin(), others_.end(), meets), others_.end());
  for (const Group& g : others_) {
    if (g.resting || g.pc > pc_) continue;
    others_.push_back({pc_, active_, false});
    choose();
    return;
  }
  update_limit();
}

void Warp::rest(Lanes lanes, uint32_t pc) { others_.push_back({pc, lanes, true}); }

Warp::Outcome Warp::run(uint64_t budget) {
  for (Group& g : others_) g.resting = false;
  // A group that used up its budget may be spinning on what another is to do.
  const bool skips = interrupted_ && others_.size() > 1;
  if (skips) others_.back().resting = true;
  interrupted_ = false;
  if (!choose()) return Outcome::kDone;
  bool yielded = false, gives_way = false;
  uint64_t executed = 0;
  const Instruction* code = program_.code.data();
  Outcome outcome = Outcome::kBudget;
  for (; executed < budget; ++executed) {
    if (pc_ >= limit_) reconverge();
    const Instruction& in = code[pc_];
    const Lanes lanes = active_ & (predicate(in.guard) ^ in.guard_flip);
    if (lanes == 0) {
      ++pc_;
      continue;
    }
    const Step step = in.handler(*this, in, lanes);
    if (step == Step::kNext) {
      ++pc_;
      continue;
    }
    if (step == Step::kGiveWay) {
      ++pc_;
      gives_way = true;
      outcome = Outcome::kYielded;
      break;
    }
    if (step == Step::kJumped) {
      if (active_ != 0 || choose()) continue;
    } else {
      const Lanes staying = step == Step::kYield ? 0 : lanes;
      if (staying) rest(staying, pc_);
      if (active_ != staying) {
        const bool yields = step == Step::kYield;
        others_.push_back({pc_ + 1, active_ & ~staying, yields, yields ? pc_ : kNowhere});
      }
      yielded |= step != Step::kWait;
      if (choose()) continue;
    }
    outcome = live_ == 0 ? Outcome::kDone
              : skips    ? Outcome::kBudget
              : yielded  ? Outcome::kYielded
                         : Outcome::kBlocked;
    break;
  }
  if (active_ != 0) {
    others_.push_back({pc_, active_, true});
    active_ = 0;
    interrupted_ = !gives_way;
  }
  cta_.grid().count(executed);
  return outcome;
}

void Warp::jump(Lanes lanes, uint32_t target) {
  if (lanes != active_) others_.push_back({pc_ + 1, active_ & ~lanes, false});
  active_ = lanes;
  pc_ = target;
  if (!others_.empty()) reconverge();
}

void Warp::jump_each(Lanes lanes, const uint32_t* targets) {
  Lanes rest = lanes;
  while (rest) {
    const uint32_t target = targets[__builtin_ctz(rest)];
    Lanes same = 0;
    for_each_lane(rest, [&](int i) { same |= Lanes{targets[i] == target} << i; });
    others_.push_back({target, same, false});
    rest &= ~same;
  }
  if (lanes != active_) others_.push_back({pc_ + 1, active_ & ~lanes, false});
  choose();
}

void Warp::exit(Lanes lanes) {
  for_each_lane(lanes, [this](int i) {
    copies[i].wait_all();
    bulk_copies[i].wait_all();
  });
  live_ &= ~lanes;
  active_ &= ~lanes;
  if (active_ != 0) ++pc_;
  cta_.warp_changed();
}

bool Warp::converged(Lanes lanes, Lanes members) const {
  if (lanes & ~members) {
    throw LaneError(
        Fault::kIllegalInstruction, __builtin_ctz(lanes & ~members),
        fmt::format("lanes {:#x} execute this with the member mask {:#x}", lanes, members));
  }
  return lanes == (members & live_);
}

void Warp::require_all(Lanes lanes) const {
  if (lanes != kAllLanes) {
    throw DeviceError(
        Fault::kIllegalInstruction,
        fmt::format("all lanes of a warp have to execute this together: found {:#x}", lanes));
  }
}

std::string Warp::describe() const {
  std::string result;
  const auto add = [&](uint32_t pc, Lanes lanes) {
    const Program::Place& place = program_.places[program_.code[pc].statement];
    result += fmt::format("\n  warp {} lanes {:#010x} at PTX line {}: {}", index_, lanes,
                          place.line, place.text);
  };
  if (active_) add(pc_, active_);
  for (const Group& g : others_) add(g.after != kNowhere ? g.after : g.pc, g.lanes);
  return result;
}

}  // namespace sprocket::cuda_simulator
