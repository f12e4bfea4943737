// Addresses of lanes, and where the host finds them.
#pragma once

#include "tests/cuda_simulator/decoder.h"
#include "tests/cuda_simulator/grid.h"
#include "tests/cuda_simulator/warp.h"

namespace sprocket::cuda_simulator {

// The space that an opcode names; generic if none.
Space space_named(Modifiers& modifiers);

// Where `bytes` at an address are, for one lane. Throws LaneError if they are out of bounds or not
// aligned to `align`.
std::byte* locate(Warp& warp, Space space, int lane, uint64_t address, uint64_t bytes,
                  uint64_t align);
// The part of locate() that is not inlined: every space but global memory, and errors.
std::byte* locate_elsewhere(Warp& warp, Space space, int lane, uint64_t address, uint64_t bytes);
[[noreturn]] void misaligned(int lane, uint64_t address, uint64_t align);

inline std::byte* locate(Warp& warp, Space space, int lane, uint64_t address, uint64_t bytes,
                         uint64_t align) {
  if (address & (align - 1)) misaligned(lane, address, align);
  if (space == Space::kGlobal) {
    if (std::byte* found = warp.cta().grid().memory().find(address, bytes)) return found;
  } else if (space == Space::kShared) {
    Cta& cta = warp.cta();
    if (address + bytes <= cta.shared_bytes()) return cta.shared() + address;
  }
  return locate_elsewhere(warp, space, lane, address, bytes);
}

// Shared memory of any CTA of the cluster by its 32-bit address; nullptr if out of bounds. `owner`
// gets its CTA.
std::byte* locate_shared(Cta& cta, uint64_t address, uint64_t bytes, Cta** owner = nullptr);

// The addresses of an instruction whose base is at `base`, with the flag for a base of 32 bits.
struct AddressOperand {
  uint32_t base;
  bool is_narrow;
  int64_t offset;
  uint64_t of(Warp& warp, int lane) const {
    return is_narrow ? static_cast<uint32_t>(warp.values<uint32_t>(base)[lane] + offset)
                     : warp.values<uint64_t>(base)[lane] + static_cast<uint64_t>(offset);
  }
};

}  // namespace sprocket::cuda_simulator
