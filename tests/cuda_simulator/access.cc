#include "tests/cuda_simulator/access.h"

namespace sprocket::cuda_simulator {

Space space_named(Modifiers& m) {
  if (m.take("global")) return Space::kGlobal;
  if (m.take("shared") || m.take("shared::cta")) return Space::kShared;
  if (m.take("shared::cluster")) return Space::kSharedCluster;
  if (m.take("const")) return Space::kConst;
  if (m.take("local")) return Space::kLocal;
  if (m.take("param") || m.take("param::entry") || m.take("param::func")) return Space::kParam;
  return Space::kGeneric;
}

void misaligned(int lane, uint64_t address, uint64_t align) {
  throw LaneError(
      Fault::kMisaligned, lane,
      fmt::format("misaligned address {:#x}: expected a multiple of {}", address, align));
}

std::byte* locate_shared(Cta& cta, uint64_t address, uint64_t bytes, Cta** owner) {
  const uint64_t rank = address >> kSharedRankShift;
  const uint64_t offset = address & ((uint64_t{1} << kSharedRankShift) - 1);
  if (rank > cta.cluster().size()) return nullptr;
  Cta& target = rank == 0 ? cta : cta.cluster().cta(static_cast<unsigned>(rank) - 1);
  if (offset + bytes > target.shared_bytes()) return nullptr;
  if (owner != nullptr) *owner = &target;
  return target.shared() + offset;
}

std::byte* locate_elsewhere(Warp& warp, Space space, int lane, uint64_t address, uint64_t bytes) {
  Grid& grid = warp.cta().grid();
  if (space == Space::kGeneric) {
    if (address - kSharedWindow < kSpecialWindowBytes) {
      return locate_elsewhere(warp, Space::kSharedCluster, lane, address - kSharedWindow, bytes);
    }
    if (address - kLocalWindow < kSpecialWindowBytes) {
      return locate_elsewhere(warp, Space::kLocal, lane, address - kLocalWindow, bytes);
    }
    if (address - kParamWindow < kSpecialWindowBytes) {
      return locate_elsewhere(warp, Space::kParam, lane, address - kParamWindow, bytes);
    }
    space = Space::kGlobal;
  }
  switch (space) {
    case Space::kGlobal:
    case Space::kConst:
      if (std::byte* found = grid.memory().find(address, bytes)) return found;
      throw LaneError(Fault::kIllegalAddress, lane,
                      fmt::format("access to {} bytes at {:#x} of global memory: {}", bytes,
                                  address, grid.memory().describe(address)));
    case Space::kShared:
    case Space::kSharedCluster:
      if (std::byte* found = locate_shared(warp.cta(), address, bytes)) return found;
      throw LaneError(Fault::kIllegalAddress, lane,
                      fmt::format("access to {} bytes at {:#x} of shared memory: the block has {}",
                                  bytes, address, grid.shared_bytes()));
    case Space::kLocal:
      if (address + bytes <= warp.local_bytes()) return warp.local(lane) + address;
      throw LaneError(Fault::kIllegalAddress, lane,
                      fmt::format("access to {} bytes at {:#x} of local memory: a thread has {}",
                                  bytes, address, warp.local_bytes()));
    case Space::kParam:
      if (address + bytes <= grid.parameter_bytes()) return grid.parameters() + address;
      throw LaneError(Fault::kIllegalAddress, lane,
                      fmt::format("access to {} bytes at {:#x} of {} bytes of parameters", bytes,
                                  address, grid.parameter_bytes()));
    case Space::kGeneric:
      break;
  }
  throw LaneError(Fault::kIllegalAddress, lane, "an address in no state space");
}

}  // namespace sprocket::cuda_simulator
