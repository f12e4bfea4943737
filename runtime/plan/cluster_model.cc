#include "runtime/plan/cluster_model.h"

#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/error.h"
#include "configs/cluster.pb.h"

namespace sprocket::runtime {

ClusterModel cluster_model(const config::Cluster& cluster, int precision) {
  constexpr double kGiga = 1e9, kTera = 1e12, kMicro = 1e-6, kNano = 1e-9;
  ClusterModel model;
  model.name = cluster.name();
  model.nodes = cluster.nodes();
  model.devices = cluster.devices();
  for (const config::Link& link : cluster.link()) {
    model.links[link.class_()] = {link.bandwidth_gb_s() * kGiga,
                                  link.latency_us() * kMicro,
                                  link.message_us() * kMicro,
                                  link.duplex() == config::Link::FULL,
                                  link.adapter() == config::Link::SHARED,
                                  link.overlap()};
  }
  const auto rates =
      std::find_if(cluster.rates().begin(), cluster.rates().end(),
                   [&](const auto& candidate) { return candidate.precision() == precision; });
  if (rates == cluster.rates().end()) {
    std::vector<std::string> known;
    for (const auto& each : cluster.rates()) {
      known.push_back(config::Compute::Precision_Name(each.precision()));
    }
    throw ConfigError(fmt::format(
        "cluster {}: rates: none for precision {}, which the job computes in; found {}",
        cluster.name(),
        config::Compute::Precision_Name(static_cast<config::Compute::Precision>(precision)),
        fmt::join(known, ", ")));
  }
  model.device = {rates->attention_forward_tflops() * kTera,
                  rates->attention_backward_tflops() * kTera,
                  rates->linear_tflops() * kTera,
                  rates->selection_tflops() * kTera,
                  cluster.copy_gb_s() * kGiga,
                  cluster.call_us() * kMicro,
                  cluster.memory_gib() * 1024.0 * 1024.0 * 1024.0,
                  rates->attention_forward_row_ns() * kNano,
                  rates->attention_backward_row_ns() * kNano};
  return model;
}

TransferTime transfer_time(const ClusterModel& cluster, const Flow& rank, const Flow& node) {
  TransferTime longest;
  for (int which = 0; which < kLinkClasses; ++which) {
    const LinkModel& link = cluster.links[which];
    const Flow& flow = link.shared ? node : rank;
    const double sent = flow.sent[which], received = flow.received[which];
    if (rank.messages[which] == 0 && rank.received[which] == 0) continue;
    const double bytes = link.full_duplex ? std::max(sent, received) : sent + received;
    const double seconds = link.latency + std::max(0, rank.messages[which] - 1) * link.message +
                           bytes / link.bytes_per_second;
    if (seconds > longest.seconds) longest = {seconds, link.overlap};
  }
  return longest;
}

}  // namespace sprocket::runtime
