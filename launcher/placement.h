// What a rank takes of its host when the job leaves it open: threads (compute.threads: 0) and
// memory (parallel.remote_kv: AUTO).
#pragma once

#include <bitset>
#include <cstdint>
#include <vector>

#include "parallel/comm/communicator.h"

namespace sprocket::launcher {

// Where a rank runs. Trivially copyable: ranks exchange it as bytes.
struct Placement {
  uint64_t host = 0;               // a hash of the host's name
  std::bitset<1024> usable_cores;  // the processors that the rank may run on
  int64_t memory = 0;              // of the host, that new programs can use, as the rank finds it
};

// Ranks of one host that were given the same processors divide them evenly; a rank that mpirun
// bound to processors of its own takes all of them. At least 1.
int threads_for(int rank, const std::vector<Placement>& placements);

// Ranks of one host divide what the rank that found least there found.
int64_t memory_for(int rank, const std::vector<Placement>& placements);

// A rank's place among the ranks of its host, in the world's order.
struct LocalRank {
  int rank = 0;
  int ranks = 0;
};
LocalRank local_rank(int rank, const std::vector<Placement>& placements);

Placement own_placement();

// Collective over `world`.
std::vector<Placement> gather_placements(comm::Communicator& world);

}  // namespace sprocket::launcher
