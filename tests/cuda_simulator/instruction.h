// Decoded instructions: what a warp executes.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "tests/cuda_simulator/types.h"

namespace sprocket::cuda_simulator {

class Warp;
struct Instruction;

// What a warp does after an instruction.
enum class Step {
  kNext,     // goes on with the next
  kJumped,   // the handler has set the place of every lane
  kWait,     // the lanes stay at this instruction until something changes
  kYield,    // goes on with the next, but lets other lanes of the warp, or other warps, run first
  kGiveWay,  // goes on with the next when all other warps have had their turn
};

// Executes an instruction for the lanes given, which are active and pass the guard; never none.
using Handler = Step (*)(Warp&, const Instruction&, Lanes);

// Registers, immediates and special registers are all places in a warp's register file: arrays of
// 32 values, one for each lane (predicates: one word of 32 bits). An operand is such a place, in
// bytes.
struct Instruction {
  Handler handler = nullptr;
  uint32_t guard = 0;            // place of the predicate
  Lanes guard_flip = 0;          // all ones if it is negated
  std::array<uint32_t, 5> at{};  // operands, in an order that each handler defines
  uint32_t list = 0;             // the first of more operands, in the program's list
  int64_t immediate = 0;         // offset of an address, a branch's target, …
  uint32_t flags = 0;            // defined by each handler
  uint32_t statement = 0;        // for messages: index into the program's places
};

constexpr uint32_t kNowhere = ~0u;  // of an operand that is absent

}  // namespace sprocket::cuda_simulator
