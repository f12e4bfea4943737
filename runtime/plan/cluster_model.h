// A cluster in the units of the cost model: bytes, seconds, operations per second.
//
// The time of one exchange, in which a rank sends and receives some messages at once, is, over the
// classes of links that it uses at the same time, the largest of
//
//   latency + (messages - 1) * message + bytes / bandwidth
//
// where bytes are the larger of sent and received over a full-duplex link and their sum over a
// half-duplex one, and, over an adapter that the devices of a node share, those of all of them.
#pragma once

#include <array>
#include <string>

namespace sprocket::config {
class Cluster;
}

namespace sprocket::runtime {

enum class LinkClass { kInsideNode = 0, kBetweenNodes = 1 };
inline constexpr int kLinkClasses = 2;

struct LinkModel {
  double bytes_per_second = 0;
  double latency = 0;
  double message = 0;
  bool full_duplex = true;
  bool shared = false;  // by the devices of a node
  double overlap = 0;   // share that goes on while kernels run
};

// Operations per second in one precision, and what does not depend on it.
struct DeviceModel {
  double attention_forward = 0;
  double attention_backward = 0;
  double linear = 0;
  double selection = 0;
  double copy = 0;  // bytes per second, counted once
  double call = 0;  // seconds
  double memory = 0;
  double forward_row = 0, backward_row = 0;  // seconds of a pass for each query row and head
};

struct ClusterModel {
  std::string name;
  int nodes = 1;
  int devices = 1;
  std::array<LinkModel, kLinkClasses> links;
  DeviceModel device;

  int world() const { return nodes * devices; }
  int node_of(int rank) const { return rank / devices; }
  LinkClass link_between(int a, int b) const {
    return node_of(a) == node_of(b) ? LinkClass::kInsideNode : LinkClass::kBetweenNodes;
  }
  const LinkModel& link(LinkClass which) const { return links[static_cast<int>(which)]; }
};

// `precision`: a value of config::Compute::Precision. Throws ConfigError when the cluster has no
// rates for it, with those that it has.
ClusterModel cluster_model(const config::Cluster& cluster, int precision);

// What a rank sends and receives in one exchange, by class of link.
struct Flow {
  std::array<double, kLinkClasses> sent{}, received{};
  std::array<int, kLinkClasses> messages{};  // sent

  void add_sent(LinkClass link, double bytes, int count) {
    sent[static_cast<int>(link)] += bytes;
    messages[static_cast<int>(link)] += count;
  }
  void add_received(LinkClass link, double bytes) { received[static_cast<int>(link)] += bytes; }
};

struct TransferTime {
  double seconds = 0;
  double overlap = 0;  // share of it that goes on while kernels run
};

// `node`: the sums over all ranks of the node, of which only a shared adapter's are looked at.
TransferTime transfer_time(const ClusterModel& cluster, const Flow& rank, const Flow& node);

}  // namespace sprocket::runtime
