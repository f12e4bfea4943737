// Which Ulysses rank works on which heads, by what the heads cost in the call before.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "parallel/comm/communicator.h"
#include "parallel/mesh.h"

namespace sprocket::parallel {

// The heads in an order of which every rank gets an equal part, the first rank the first. Runs of
// `unit` heads stay together; the dearest run goes first, to the rank with least work that has
// room, ties to the lower number; then the busiest rank exchanges runs with others as long as the
// busier of the two gets less work than it had. A rank's heads ascend. Empty, which means 0, 1, 2,
// …, where that order's busiest rank has no more work. unit * ranks divides the heads.
std::vector<int> balanced_head_order(std::span<const int64_t> cost, int ranks, int unit);

// The heads of part `rank` of an order, empty or not, of `heads` heads.
std::vector<int> heads_of_rank(std::span<const int> order, int rank, int ranks, int heads);

// Costs of the last call of each layer, known on all ranks when the next one begins. Nobody waits
// for them before that.
class HeadBalancer {
 public:
  // `sequence` must outlive the object; its rank r is outer index r / ulysses, ulysses index
  // r % ulysses.
  HeadBalancer(comm::Communicator& sequence, const MeshShape& shape)
      : sequence_(sequence), ulysses_(shape.ulysses) {}

  // By the costs that were last given, summed over the outer ranks; before any: the empty order.
  // The same on all ranks.
  std::vector<int> order(int layer, int heads, int unit);
  // Begins to gather what a call cost: of this rank's heads under `order`, in its order.
  // Collective.
  void give(int layer, std::span<const int> order, std::span<const int64_t> own_cost);
  // Waits for what is under way.
  void settle();

 private:
  struct Layer {
    std::vector<int> order;
    std::vector<int64_t> own, all;
    comm::Work work;  // last: it is settled before its buffers go
  };

  comm::Communicator& sequence_;
  int ulysses_;
  std::map<int, Layer> layers_;
};

}  // namespace sprocket::parallel
