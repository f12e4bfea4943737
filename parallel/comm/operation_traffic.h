// What an operation sends to and receives from other ranks, in closed form.
//
// Every non-empty part for another rank is one message; nothing is counted for the own rank. With n
// ranks and e bytes per element:
//   all_gather      rank r sends counts[r] e to each of n-1 peers
//   reduce_scatter  rank r sends counts[p] e to every peer p
//   all_reduce      a reduce_scatter of near-equal parts, then an all_gather of them
//   all_to_all      one part to each of n-1 peers
//   broadcast       the root sends everything to each of n-1 peers
//   exchange        its segments
//   barrier, split  no payload
//
// Bandwidth is counted of an operation's volume, on which a link's share of it depends:
//   all_reduce, broadcast                   the buffer
//   all_gather, reduce_scatter, all_to_all  the parts of all ranks, n of them
//   exchange                                what this rank sent or received, whichever is more; of
//                                           the operation it is the largest of its members'
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "parallel/comm/communicator.h"

namespace sprocket::comm {

struct OperationTraffic {
  int64_t bytes_sent = 0;
  int64_t bytes_received = 0;
  int64_t messages_sent = 0;
  int64_t volume_bytes = 0;
  bool operator==(const OperationTraffic&) const = default;
};

// Parts of n ranks that differ by at most one element, the longer ones first.
std::vector<int64_t> near_equal_parts(int64_t count, int ranks);

// Functions below add the bytes for each peer to `sent_to`, which has an element for each rank of
// the group, or none: then nothing is told by peer. bytes_sent is the sum of what they add.
OperationTraffic all_reduce_traffic(int rank, int size, int64_t count, int64_t element_bytes,
                                    std::span<int64_t> sent_to = {});
OperationTraffic all_gather_traffic(int rank, std::span<const int64_t> counts,
                                    int64_t element_bytes, std::span<int64_t> sent_to = {});
OperationTraffic reduce_scatter_traffic(int rank, std::span<const int64_t> counts,
                                        int64_t element_bytes, std::span<int64_t> sent_to = {});
OperationTraffic all_to_all_traffic(int rank, int size, int64_t part, int64_t element_bytes,
                                    std::span<int64_t> sent_to = {});
OperationTraffic broadcast_traffic(int rank, int size, int root, int64_t count,
                                   int64_t element_bytes, std::span<int64_t> sent_to = {});
OperationTraffic exchange_traffic(int rank, std::span<const Segment> send,
                                  std::span<const Segment> receive, int64_t element_bytes,
                                  std::span<int64_t> sent_to = {});

}  // namespace sprocket::comm
