#include "runtime/planner/measured_cluster.h"

#include <algorithm>
#include <functional>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/error.h"
#include "base/timeline.h"

namespace sprocket::runtime {
namespace {

using profile::KernelRow;
using profile::OperationRow;
using profile::Report;

constexpr double kGiga = 1e9, kTera = 1e12, kMilli = 1e-3, kMicro = 1e-6;
constexpr double kLongCall = 64 << 10, kShortCall = 4 << 10;  // bytes

struct Sum {
  double work = 0, seconds = 0;
  std::vector<std::string> names;
};

// Kernels of which the work was counted.
Sum sum_of(const Report& report, std::optional<double> KernelRow::*work,
           const std::function<bool(const KernelRow&)>& wanted) {
  Sum sum;
  for (const KernelRow& kernel : report.kernels) {
    if ((kernel.*work).value_or(0) <= 0 || kernel.ms <= 0 || !wanted(kernel)) continue;
    sum.work += *(kernel.*work);
    sum.seconds += kMilli * kernel.ms;
    if (std::find(sum.names.begin(), sum.names.end(), kernel.name) == sum.names.end()) {
      sum.names.push_back(kernel.name);
    }
  }
  return sum;
}

bool is_backward(const KernelRow& kernel) {
  return kernel.phase == name_of(Phase::kBackward) ||
         kernel.phase == name_of(Phase::kFakeScoreBackward);
}

class Measurement {
 public:
  Measurement(const config::Cluster& cluster, const Report& report) : report_(report) {
    result_.cluster = cluster;
  }

  MeasuredCluster run(int precision) {
    for (config::KernelRates& rates : *result_.cluster.mutable_rates()) {
      if (rates.precision() == precision) measure_rates(rates);
    }
    const Sum copies = sum_of(report_, &KernelRow::bytes,
                              [](const KernelRow& kernel) { return kernel.activity == "copy"; });
    const auto copied = figure("copy_gb_s", result_.cluster.copy_gb_s(), copies, 2 * kGiga);
    if (copied) result_.cluster.set_copy_gb_s(*copied);
    for (config::Link& link : *result_.cluster.mutable_link()) measure_link(link);
    return std::move(result_);
  }

 private:
  // Of work that is there, the rate in units of `unit`.
  std::optional<double> figure(const std::string& name, double of_cluster, const Sum& sum,
                               double unit) {
    std::optional<double> measured;
    if (sum.work > 0) measured = sum.work / sum.seconds / unit;
    result_.figures.push_back(
        {name, measured, of_cluster,
         measured ? fmt::format("{}", fmt::join(sum.names, ", ")) : "no kernel says what it did"});
    return measured;
  }

  void measure_rates(config::KernelRates& rates) {
    const auto flops = [&](KernelKind kind, std::optional<bool> backward) {
      return sum_of(report_, &KernelRow::flops, [&](const KernelRow& kernel) {
        return kind_of(kernel) == kind && (!backward || is_backward(kernel) == *backward);
      });
    };
    if (const auto rate = figure("attention_forward_tflops", rates.attention_forward_tflops(),
                                 flops(KernelKind::kAttention, false), kTera)) {
      rates.set_attention_forward_tflops(*rate);
      rates.set_attention_forward_row_ns(0);
    }
    if (const auto rate = figure("attention_backward_tflops", rates.attention_backward_tflops(),
                                 flops(KernelKind::kAttention, true), kTera)) {
      rates.set_attention_backward_tflops(*rate);
      rates.set_attention_backward_row_ns(0);
    }
    if (const auto rate = figure("linear_tflops", rates.linear_tflops(),
                                 flops(KernelKind::kLinear, std::nullopt), kTera)) {
      rates.set_linear_tflops(*rate);
    }
    if (const auto rate = figure("selection_tflops", rates.selection_tflops(),
                                 flops(KernelKind::kSelection, std::nullopt), kTera)) {
      rates.set_selection_tflops(*rate);
    }
  }

  void measure_link(config::Link& link) {
    const std::string name = config::Link::Class_Name(link.class_()) + " ";
    std::optional<double> latency, bandwidth;
    std::string shortest, best;
    for_operations(link.class_(), [&](const OperationRow& row, double seconds, double bytes) {
      if (bytes > kShortCall || (latency && seconds >= *latency)) return;
      latency = seconds;
      shortest = call_text(row, bytes);
    });
    const double wait = latency.value_or(kMicro * link.latency_us());
    for_operations(link.class_(), [&](const OperationRow& row, double seconds, double bytes) {
      if (!row.busbw_gb_s || bytes < kLongCall) return;
      // A latency of more than half of the call cannot be told from the bytes.
      const double rate = bytes / (seconds > 2 * wait ? seconds - wait : seconds);
      if (bandwidth && rate <= *bandwidth) return;
      bandwidth = rate;
      best = call_text(row, bytes);
    });
    result_.figures.push_back(
        {name + "latency_us", latency ? std::optional(*latency / kMicro) : std::nullopt,
         link.latency_us(), latency ? shortest : "no operation of at most 4 KiB a call"});
    if (latency) link.set_latency_us(*latency / kMicro);
    if (bandwidth) {
      *bandwidth /= kGiga;
      if (link.duplex() == config::Link::HALF) *bandwidth *= 2;
      if (link.adapter() == config::Link::SHARED) *bandwidth *= ranks_of_a_host();
    }
    result_.figures.push_back({name + "bandwidth_gb_s", bandwidth, link.bandwidth_gb_s(),
                               bandwidth ? best : "no operation of at least 64 KiB a call"});
    if (bandwidth) link.set_bandwidth_gb_s(*bandwidth);
  }

  static std::string call_text(const OperationRow& row, double bytes) {
    return fmt::format("{} {} {}, {:.3g} kB a call", row.group, row.op, row.phase, bytes / 1e3);
  }

  // Those over a class of links, with the transfer and the bytes of one call: where the bandwidth
  // is known, as busbw counts them.
  template <class Visit>
  void for_operations(config::Link::Class which, Visit&& visit) const {
    for (const OperationRow& row : report_.operations) {
      if (row.payload_bytes <= 0 || row.calls <= 0 || row.transfer_ms <= 0 || row.matched <= 0 ||
          link_class_of(row) != which) {
        continue;
      }
      const double bytes =
          row.busbw_gb_s ? *row.busbw_gb_s * kGiga * kMilli * row.transfer_ms : row.payload_bytes;
      visit(row, kMilli * row.transfer_ms / row.calls, bytes / row.calls);
    }
  }

  int ranks_of_a_host() const {
    int most = 1;
    for (const profile::Host& host : report_.machine.hosts) most = std::max(most, host.ranks);
    return most;
  }

  const Report& report_;
  MeasuredCluster result_;
};

}  // namespace

KernelKind kind_of(const KernelRow& kernel) {
  const std::string& name = kernel.name;
  const auto is_any = [&](std::initializer_list<const char*> names) {
    return std::find(names.begin(), names.end(), name) != names.end();
  };
  if (is_any({"attention.local", "attention.remote", "attention.ring_step", "attention.prefix",
              "attention.global"})) {
    return KernelKind::kAttention;
  }
  if (is_any({"attention.select", "attention.coarse", "attention.prune"})) {
    return KernelKind::kSelection;
  }
  if (name.starts_with("attention.") || name.starts_with("ulysses.")) {
    return KernelKind::kAttentionCopies;
  }
  if (is_any({"linear", "gelu_linear"})) return KernelKind::kLinear;
  if (name == "optimizer") return KernelKind::kOptimizer;
  return KernelKind::kOther;
}

config::Link::Class link_class_of(const OperationRow& operation) {
  return operation.between_nodes_bytes > 0 ? config::Link::BETWEEN_NODES
                                           : config::Link::INSIDE_NODE;
}

MeasuredCluster measured_cluster(const config::Cluster& cluster, int precision,
                                 const Report& report) {
  return Measurement(cluster, report).run(precision);
}

MeasuredSelection measured_selection(const Report& report) {
  const auto mean = [&](std::optional<profile::Range> profile::LayerRow::*member) {
    double sum = 0;
    int count = 0;
    for (const profile::LayerRow& layer : report.layers) {
      if (!(layer.*member)) continue;
      sum += (layer.*member)->mean;
      ++count;
    }
    return count > 0 ? std::optional(sum / count) : std::nullopt;
  };
  return {mean(&profile::LayerRow::density), mean(&profile::LayerRow::coverage)};
}

std::string figures_text(const MeasuredCluster& measured, const std::string& profile) {
  std::string text = fmt::format("Figures measured in {}, in place of the cluster's\n", profile);
  for (const MeasuredFigure& figure : measured.figures) {
    text += fmt::format(
        "  {:<29}{:>10.4g}  {}\n", figure.name, figure.measured.value_or(figure.of_cluster),
        figure.measured ? fmt::format("{} (cluster: {:.4g})", figure.source, figure.of_cluster)
                        : fmt::format("the cluster's: {}", figure.source));
  }
  return text;
}

}  // namespace sprocket::runtime
