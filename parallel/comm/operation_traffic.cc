#include "parallel/comm/operation_traffic.h"

namespace sprocket::comm {

std::vector<int64_t> near_equal_parts(int64_t count, int ranks) {
  std::vector<int64_t> parts(ranks, count / ranks);
  for (int64_t r = 0; r < count % ranks; ++r) ++parts[r];
  return parts;
}

OperationTraffic all_reduce_traffic(int rank, int size, int64_t count, int64_t element_bytes) {
  const auto parts = near_equal_parts(count, size);
  const auto first = reduce_scatter_traffic(rank, parts, element_bytes);
  const auto second = all_gather_traffic(rank, parts, element_bytes);
  return {first.bytes_sent + second.bytes_sent, first.bytes_received + second.bytes_received,
          first.messages_sent + second.messages_sent};
}

OperationTraffic all_gather_traffic(int rank, std::span<const int64_t> counts,
                                    int64_t element_bytes) {
  OperationTraffic traffic;
  for (int peer = 0; peer < static_cast<int>(counts.size()); ++peer) {
    if (peer == rank) continue;
    traffic.bytes_sent += counts[rank] * element_bytes;
    traffic.bytes_received += counts[peer] * element_bytes;
    traffic.messages_sent += counts[rank] > 0;
  }
  return traffic;
}

OperationTraffic reduce_scatter_traffic(int rank, std::span<const int64_t> counts,
                                        int64_t element_bytes) {
  OperationTraffic traffic;
  for (int peer = 0; peer < static_cast<int>(counts.size()); ++peer) {
    if (peer == rank) continue;
    traffic.bytes_sent += counts[peer] * element_bytes;
    traffic.bytes_received += counts[rank] * element_bytes;
    traffic.messages_sent += counts[peer] > 0;
  }
  return traffic;
}

OperationTraffic all_to_all_traffic(int size, int64_t part, int64_t element_bytes) {
  const int64_t bytes = (size - 1) * part * element_bytes;
  return {bytes, bytes, part > 0 ? size - 1 : 0};
}

OperationTraffic broadcast_traffic(int rank, int size, int root, int64_t count,
                                   int64_t element_bytes) {
  if (rank != root) return {0, count * element_bytes, 0};
  return {(size - 1) * count * element_bytes, 0, count > 0 ? size - 1 : 0};
}

OperationTraffic exchange_traffic(int rank, std::span<const Segment> send,
                                  std::span<const Segment> receive, int64_t element_bytes) {
  OperationTraffic traffic;
  for (const auto& segment : send) {
    if (segment.peer == rank) continue;
    traffic.bytes_sent += segment.count * element_bytes;
    traffic.messages_sent += segment.count > 0;
  }
  for (const auto& segment : receive) {
    if (segment.peer != rank) traffic.bytes_received += segment.count * element_bytes;
  }
  return traffic;
}

}  // namespace sprocket::comm
