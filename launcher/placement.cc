#include "launcher/placement.h"

#include <sched.h>

#include <algorithm>
#include <functional>
#include <string_view>
#include <type_traits>

#include "base/host_name.h"
#include "launcher/doctor/machine.h"

namespace sprocket::launcher {

static_assert(std::is_trivially_copyable_v<Placement>);

int threads_for(int rank, const std::vector<Placement>& placements) {
  const Placement& own = placements[rank];
  const auto sharing =
      std::count_if(placements.begin(), placements.end(), [&](const Placement& other) {
        return other.host == own.host && (other.usable_cores & own.usable_cores).any();
      });
  const auto cores = static_cast<int64_t>(own.usable_cores.count());
  return static_cast<int>(std::max<int64_t>(1, cores / std::max<int64_t>(1, sharing)));
}

int64_t memory_for(int rank, const std::vector<Placement>& placements) {
  int64_t least = placements[rank].memory, sharing = 0;
  for (const Placement& other : placements) {
    if (other.host != placements[rank].host) continue;
    least = std::min(least, other.memory);
    ++sharing;
  }
  return least / sharing;
}

LocalRank local_rank(int rank, const std::vector<Placement>& placements) {
  LocalRank local;
  for (size_t other = 0; other < placements.size(); ++other) {
    if (placements[other].host != placements[rank].host) continue;
    if (other < static_cast<size_t>(rank)) ++local.rank;
    ++local.ranks;
  }
  return local;
}

Placement own_placement() {
  Placement placement;
  placement.host = std::hash<std::string>()(own_host_name());
  cpu_set_t usable;
  CPU_ZERO(&usable);
  sched_getaffinity(0, sizeof usable, &usable);
  for (size_t cpu = 0; cpu < placement.usable_cores.size(); ++cpu) {
    placement.usable_cores[cpu] = CPU_ISSET(cpu, &usable);
  }
  placement.memory = available_memory();
  return placement;
}

std::vector<Placement> gather_placements(comm::Communicator& world) {
  const Placement own = own_placement();
  std::vector<Placement> all(world.size());
  const std::vector<int64_t> counts(world.size(), sizeof(Placement));
  const comm::Buffer in{const_cast<Placement*>(&own), sizeof own, DType::kU8};
  const comm::Buffer out{all.data(), static_cast<int64_t>(all.size() * sizeof(Placement)),
                         DType::kU8};
  world.all_gather(in, out, counts).wait_host();
  return all;
}

}  // namespace sprocket::launcher
