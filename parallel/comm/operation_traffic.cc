#include "parallel/comm/operation_traffic.h"

#include <algorithm>
#include <numeric>

namespace sprocket::comm {
namespace {

// One peer's part of what is sent: at most one message.
void send(int peer, int64_t bytes, OperationTraffic& traffic, std::span<int64_t> sent_to) {
  traffic.bytes_sent += bytes;
  traffic.messages_sent += bytes > 0;
  if (!sent_to.empty()) sent_to[peer] += bytes;
}

int64_t sum(std::span<const int64_t> counts) {
  return std::accumulate(counts.begin(), counts.end(), int64_t{0});
}

}  // namespace

std::vector<int64_t> near_equal_parts(int64_t count, int ranks) {
  std::vector<int64_t> parts(ranks, count / ranks);
  for (int64_t r = 0; r < count % ranks; ++r) ++parts[r];
  return parts;
}

OperationTraffic all_reduce_traffic(int rank, int size, int64_t count, int64_t element_bytes,
                                    std::span<int64_t> sent_to) {
  const auto parts = near_equal_parts(count, size);
  const auto first = reduce_scatter_traffic(rank, parts, element_bytes, sent_to);
  const auto second = all_gather_traffic(rank, parts, element_bytes, sent_to);
  return {first.bytes_sent + second.bytes_sent, first.bytes_received + second.bytes_received,
          first.messages_sent + second.messages_sent, count * element_bytes};
}

OperationTraffic all_gather_traffic(int rank, std::span<const int64_t> counts,
                                    int64_t element_bytes, std::span<int64_t> sent_to) {
  OperationTraffic traffic;
  traffic.volume_bytes = sum(counts) * element_bytes;
  for (int peer = 0; peer < static_cast<int>(counts.size()); ++peer) {
    if (peer == rank) continue;
    send(peer, counts[rank] * element_bytes, traffic, sent_to);
    traffic.bytes_received += counts[peer] * element_bytes;
  }
  return traffic;
}

OperationTraffic reduce_scatter_traffic(int rank, std::span<const int64_t> counts,
                                        int64_t element_bytes, std::span<int64_t> sent_to) {
  OperationTraffic traffic;
  traffic.volume_bytes = sum(counts) * element_bytes;
  for (int peer = 0; peer < static_cast<int>(counts.size()); ++peer) {
    if (peer == rank) continue;
    send(peer, counts[peer] * element_bytes, traffic, sent_to);
    traffic.bytes_received += counts[rank] * element_bytes;
  }
  return traffic;
}

OperationTraffic all_to_all_traffic(int rank, int size, int64_t part, int64_t element_bytes,
                                    std::span<int64_t> sent_to) {
  OperationTraffic traffic;
  traffic.volume_bytes = size * part * element_bytes;
  for (int peer = 0; peer < size; ++peer) {
    if (peer != rank) send(peer, part * element_bytes, traffic, sent_to);
  }
  traffic.bytes_received = traffic.bytes_sent;
  return traffic;
}

OperationTraffic broadcast_traffic(int rank, int size, int root, int64_t count,
                                   int64_t element_bytes, std::span<int64_t> sent_to) {
  OperationTraffic traffic;
  traffic.volume_bytes = count * element_bytes;
  if (rank != root) {
    traffic.bytes_received = traffic.volume_bytes;
    return traffic;
  }
  for (int peer = 0; peer < size; ++peer) {
    if (peer != root) send(peer, traffic.volume_bytes, traffic, sent_to);
  }
  return traffic;
}

OperationTraffic exchange_traffic(int rank, std::span<const Segment> segments,
                                  std::span<const Segment> receive, int64_t element_bytes,
                                  std::span<int64_t> sent_to) {
  OperationTraffic traffic;
  for (const auto& segment : segments) {
    if (segment.peer != rank) send(segment.peer, segment.count * element_bytes, traffic, sent_to);
  }
  for (const auto& segment : receive) {
    if (segment.peer != rank) traffic.bytes_received += segment.count * element_bytes;
  }
  traffic.volume_bytes = std::max(traffic.bytes_sent, traffic.bytes_received);
  return traffic;
}

}  // namespace sprocket::comm
