#include "runtime/metrics/metrics_file.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>
#include <vector>

#include "runtime/metrics/memory.h"

namespace sprocket::runtime {
namespace {

using nlohmann::json;

json summary(const std::vector<double>& by_layer) {
  const double sum = std::accumulate(by_layer.begin(), by_layer.end(), 0.0);
  const auto [min, max] = std::minmax_element(by_layer.begin(), by_layer.end());
  return {{"mean", sum / static_cast<double>(by_layer.size())},
          {"min", *min},
          {"max", *max},
          {"by_layer", by_layer}};
}

double rounded(double share) { return std::round(share * 1e4) / 1e4; }

// Of shares by layer and head; every layer has the same number of heads.
json head_summary(const std::vector<std::vector<double>>& shares) {
  std::vector<double> by_layer;
  json by_head = json::array();
  double smallest = shares[0][0], largest = smallest;
  for (const std::vector<double>& layer : shares) {
    double sum = 0;
    json& heads = by_head.emplace_back(json::array());
    for (const double share : layer) {
      sum += share;
      smallest = std::min(smallest, share);
      largest = std::max(largest, share);
      heads.push_back(rounded(share));
    }
    by_layer.push_back(sum / static_cast<double>(layer.size()));
  }
  json object = summary(by_layer);
  for (json& layer : object["by_layer"]) layer = rounded(layer.get<double>());
  object["min"] = smallest;
  object["max"] = largest;
  object["by_head"] = std::move(by_head);
  return object;
}

}  // namespace

json MetricsFile::write(int64_t step, const StepOutcome& o, const StepFlops& flops,
                        const StepTotals& totals) {
  const double seconds = 1e-9 * static_cast<double>(o.times.wall_ns);
  const auto share = [&o](int64_t ns) {
    return static_cast<double>(ns) / static_cast<double>(std::max<int64_t>(o.times.wall_ns, 1));
  };
  json line = {{"step", step},
               {"loss", o.loss},
               {"lr", o.learning_rate},
               {"step_seconds", seconds},
               {"tokens_per_second", static_cast<double>(o.tokens) / seconds},
               {"tflops_dense_equivalent", 1e-12 * flops.dense_equivalent / seconds},
               {"tflops_executed", 1e-12 * flops.executed / seconds},
               {"memory_peak_bytes", peak_memory_bytes(device_)},
               {"data_wait_seconds", 1e-9 * static_cast<double>(o.times.data_wait_ns)},
               {"compute_share", share(o.times.compute_ns)},
               {"exposed_communication_share", share(o.times.exposed_ns)},
               {"checkpoint_stall_seconds", totals.checkpoint_stall_seconds},
               {"skipped_steps", totals.skipped_steps},
               {"bad_samples", totals.bad_samples},
               {"failed_saves", totals.failed_saves},
               {"density", summary(o.density)},
               {"coverage", summary(o.coverage)},
               {"imbalance", summary(o.imbalance)}};
  // JSON has no infinities: the norm of a skipped step is absent.
  if (!o.skipped) line["grad_norm"] = o.gradient_norm;
  if (!o.domain_coverage.empty()) line["domain_coverage"] = head_summary(o.domain_coverage);
  if (!o.kept_mass.empty()) line["kept_mass"] = head_summary(o.kept_mass);
  lines_.write(line);
  return line;
}

}  // namespace sprocket::runtime
