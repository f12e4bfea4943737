#include <numeric>

#include "tests/cuda_simulator/error.h"
#include "tests/cuda_simulator/grid.h"

namespace sprocket::cuda_simulator {

Cta::Cta(Grid& grid, Cluster& cluster, unsigned rank, Extent index)
    : grid_(grid),
      cluster_(cluster),
      rank_(rank),
      index_(index),
      shared_(grid.shared_bytes(), std::byte{0xff}) {
  const auto threads = static_cast<unsigned>(grid.shape().block.count());
  const unsigned count = (threads + kWarpSize - 1) / kWarpSize;
  warps_.reserve(count);
  for (unsigned w = 0; w < count; ++w) {
    const unsigned rest = threads - w * kWarpSize;
    warps_.emplace_back(*this, grid.program(), w,
                        rest >= kWarpSize ? kAllLanes : (Lanes{1} << rest) - 1);
  }
}

unsigned Cta::live_threads() const {
  return std::accumulate(warps_.begin(), warps_.end(), 0u, [](unsigned sum, const Warp& warp) {
    return sum + __builtin_popcount(warp.live());
  });
}

void Cta::complete(Barrier& barrier) {
  ++barrier.phase;
  barrier.arrived = 0;
  barrier.result = barrier.pending;
  barrier.pending = {};
}

uint64_t Cta::arrive(unsigned id, unsigned count, unsigned expected) {
  Barrier& barrier = barriers_[id];
  if (barrier.arrived != 0 && barrier.expected != expected) {
    throw DeviceError(Fault::kIllegalInstruction,
                      fmt::format("barrier {}: a warp expects {} threads, an earlier one {}", id,
                                  expected, barrier.expected));
  }
  grid_.event();
  const uint64_t phase = barrier.phase;
  barrier.expected = expected;
  barrier.arrived += count;
  const unsigned full = expected != 0 ? expected : live_threads();
  if (barrier.arrived > full) {
    throw DeviceError(
        Fault::kIllegalInstruction,
        fmt::format("barrier {}: {} threads arrive, {} expected", id, barrier.arrived, full));
  }
  if (barrier.arrived == full) complete(barrier);
  return phase;
}

void Cta::vote(unsigned id, unsigned yes, unsigned of) {
  barriers_[id].pending.votes += yes;
  barriers_[id].pending.ballots += of;
}

void Cta::warp_changed() {
  grid_.event();
  const unsigned live = live_threads();
  for (Barrier& barrier : barriers_) {
    if (barrier.arrived != 0 && barrier.expected == 0 && barrier.arrived >= live) complete(barrier);
  }
  cluster_.threads_changed();
}

uint64_t Cta::special(Special which, unsigned thread) const {
  const LaunchShape& shape = grid_.shape();
  const Extent tid = shape.block.index(thread);
  const Extent cluster = cluster_.index();
  const Extent in_cluster = shape.cluster.index(rank_);
  const unsigned lane = thread % kWarpSize;
  switch (which) {
    case Special::kTidX:
      return tid.x;
    case Special::kTidY:
      return tid.y;
    case Special::kTidZ:
      return tid.z;
    case Special::kNtidX:
      return shape.block.x;
    case Special::kNtidY:
      return shape.block.y;
    case Special::kNtidZ:
      return shape.block.z;
    case Special::kCtaidX:
      return index_.x;
    case Special::kCtaidY:
      return index_.y;
    case Special::kCtaidZ:
      return index_.z;
    case Special::kNctaidX:
      return shape.grid.x;
    case Special::kNctaidY:
      return shape.grid.y;
    case Special::kNctaidZ:
      return shape.grid.z;
    case Special::kLaneId:
      return lane;
    case Special::kWarpId:
      return thread / kWarpSize;
    case Special::kNwarpId:
      return 64;
    case Special::kLaneMaskEq:
      return uint64_t{1} << lane;
    case Special::kLaneMaskLt:
      return (uint64_t{1} << lane) - 1;
    case Special::kLaneMaskLe:
      return (uint64_t{2} << lane) - 1;
    case Special::kLaneMaskGt:
      return kAllLanes & ~((uint64_t{2} << lane) - 1);
    case Special::kLaneMaskGe:
      return kAllLanes & ~((uint64_t{1} << lane) - 1);
    case Special::kSmId:
      return (index_.x + uint64_t{index_.y} * shape.grid.x) % grid_.device().multiprocessors;
    case Special::kNsmId:
      return grid_.device().multiprocessors;
    case Special::kGridId:
      return 1;
    case Special::kDynamicSharedBytes:
      return shape.dynamic_shared_bytes;
    case Special::kTotalSharedBytes:
      return grid_.shared_bytes();
    case Special::kClusterIdX:
      return cluster.x;
    case Special::kClusterIdY:
      return cluster.y;
    case Special::kClusterIdZ:
      return cluster.z;
    case Special::kNclusterIdX:
      return shape.grid.x / shape.cluster.x;
    case Special::kNclusterIdY:
      return shape.grid.y / shape.cluster.y;
    case Special::kNclusterIdZ:
      return shape.grid.z / shape.cluster.z;
    case Special::kClusterCtaIdX:
      return in_cluster.x;
    case Special::kClusterCtaIdY:
      return in_cluster.y;
    case Special::kClusterCtaIdZ:
      return in_cluster.z;
    case Special::kClusterNctaIdX:
      return shape.cluster.x;
    case Special::kClusterNctaIdY:
      return shape.cluster.y;
    case Special::kClusterNctaIdZ:
      return shape.cluster.z;
    case Special::kClusterCtaRank:
      return rank_;
    case Special::kClusterNctaRank:
      return shape.cluster.count();
    case Special::kIsExplicitCluster:
      return shape.cluster.count() > 1;
    case Special::kClock:
    case Special::kClock64:
    case Special::kGlobalTimer:
    case Special::kActiveMask:
      break;  // read by instructions of their own
  }
  return 0;
}

}  // namespace sprocket::cuda_simulator
