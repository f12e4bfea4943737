#include "runtime/planner/calibration.h"

#include <sys/sysinfo.h>

#include <algorithm>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "base/error.h"
#include "base/host_name.h"
#include "runtime/jobs/rank_agreement.h"
#include "runtime/plan/job_specs.h"
#include "runtime/planner/measure_kernels.h"
#include "runtime/planner/measure_links.h"

namespace sprocket::runtime {
namespace {

double memory_bytes() {
  struct sysinfo info {};
  sysinfo(&info);
  return static_cast<double>(info.totalram) * info.mem_unit;
}

// Ranks of every host, which must be equal and consecutive.
int devices_of(const std::vector<std::string>& hosts) {
  const auto first = std::count(hosts.begin(), hosts.end(), hosts.front());
  for (size_t rank = 0; rank < hosts.size(); ++rank) {
    if (hosts.size() % first != 0 || hosts[rank] != hosts[rank / first * first]) {
      throw ConfigError(fmt::format(
          "--measure: expected the same number of ranks on every host, in order; rank {} is on {} "
          "and {} ranks are on {}: start mpirun with --map-by ppr:N:node, or give --devices",
          rank, hosts[rank], first, hosts.front()));
    }
  }
  return static_cast<int>(first);
}

// Three significant digits, which is more than a repetition gives.
double rounded(double value) { return std::stod(fmt::format("{:.3g}", value)); }

void round_figures(google::protobuf::Message& message) {
  const auto& reflection = *message.GetReflection();
  std::vector<const google::protobuf::FieldDescriptor*> fields;
  reflection.ListFields(message, &fields);
  for (const auto* field : fields) {
    if (field->cpp_type() == google::protobuf::FieldDescriptor::CPPTYPE_DOUBLE) {
      reflection.SetDouble(&message, field, rounded(reflection.GetDouble(message, field)));
    }
  }
}

}  // namespace

config::Cluster calibrate(const config::Job& job, const config::LatentShape& shape,
                          const CalibrationOptions& options, comm::Communicator* world) {
  constexpr double kGiga = 1e9, kTera = 1e12, kMicro = 1e-6, kNano = 1e-9,
                   kGibi = 1024.0 * 1024 * 1024;
  const int ranks = world == nullptr ? 1 : world->size();
  int devices = options.devices;
  if (world != nullptr) {
    const std::vector<std::string> hosts = gather_text(*world, own_host_name());
    if (devices == 0) devices = devices_of(hosts);
    if (ranks % devices != 0) {
      throw ConfigError(fmt::format("--devices: {} does not divide the {} ranks", devices, ranks));
    }
  } else {
    devices = 1;
  }
  const parallel::TokenLayout layout = parallel::make_token_layout(token_layout_spec(job, shape));
  const SelectionSource source =
      selection_source(job, layout, job.training().steps() - 1, options.selection);
  const kernels::SegmentTable table =
      source.unbudgeted ? *source.unbudgeted
                        : kernels::make_dense_table(1, 2, layout.blocks(), layout.blocks());
  const KernelSubject subject{job, layout, table, options.threads,
                              job.parallel().overlap() ? world : nullptr};
  const DeviceModel device = measure_device(subject, world);

  config::Cluster cluster;
  cluster.set_name(fmt::format("{}, {} thread{} a rank", own_host_name(), options.threads,
                               options.threads == 1 ? "" : "s"));
  if (world != nullptr) cluster.set_name(broadcast_text(*world, cluster.name(), 0));
  cluster.set_nodes(ranks / devices);
  cluster.set_devices(devices);
  // The system and its caches need some.
  cluster.set_memory_gib(0.9 * memory_bytes() / kGibi / devices);
  cluster.set_copy_gb_s(device.copy / kGiga);
  cluster.set_call_us(device.call / kMicro);
  const auto add_link = [&](config::Link::Class which) {
    *cluster.add_link() = measure_link(
        *world, which, devices, [&](double seconds) { return busy_kernel(subject, seconds); });
  };
  if (devices > 1) add_link(config::Link::INSIDE_NODE);
  if (ranks > devices) add_link(config::Link::BETWEEN_NODES);
  config::KernelRates& rates = *cluster.add_rates();
  rates.set_precision(job.compute().precision());
  rates.set_attention_forward_tflops(device.attention_forward / kTera);
  rates.set_attention_backward_tflops(device.attention_backward / kTera);
  rates.set_attention_forward_row_ns(device.forward_row / kNano);
  rates.set_attention_backward_row_ns(device.backward_row / kNano);
  rates.set_linear_tflops(device.linear / kTera);
  rates.set_selection_tflops(device.selection / kTera);
  round_figures(cluster);
  for (config::Link& link : *cluster.mutable_link()) round_figures(link);
  round_figures(rates);
  return cluster;
}

}  // namespace sprocket::runtime
