#include "runtime/metrics/metrics_file.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <numeric>
#include <vector>

#include "base/error.h"
#include "runtime/media/output_file.h"
#include "runtime/metrics/memory.h"

namespace sprocket::runtime {
namespace {

using nlohmann::json;

std::string lines_up_to(const std::string& path, int64_t last_step) {
  std::ifstream in(path);
  std::string kept, line;
  while (std::getline(in, line)) {
    const json object = json::parse(line, nullptr, false);
    if (object.is_object() && object.value("step", int64_t{-1}) <= last_step) kept += line + "\n";
  }
  return kept;
}

json summary(const std::vector<double>& by_layer) {
  const double sum = std::accumulate(by_layer.begin(), by_layer.end(), 0.0);
  const auto [min, max] = std::minmax_element(by_layer.begin(), by_layer.end());
  return {{"mean", sum / static_cast<double>(by_layer.size())},
          {"min", *min},
          {"max", *max},
          {"by_layer", by_layer}};
}

}  // namespace

MetricsFile::MetricsFile(const std::string& path, int64_t first_step) : path_(path) {
  const std::string kept = lines_up_to(path, first_step);
  media::write_output_file(path, std::as_bytes(std::span(kept)));
  out_.open(path, std::ios::app);
  if (!out_) throw OutputError(fmt::format("{}: cannot be opened: {}", path, std::strerror(errno)));
}

void MetricsFile::write(int64_t step, const StepOutcome& o, const StepFlops& flops,
                        int64_t skipped_steps, int64_t bad_samples) {
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
               {"memory_peak_bytes", peak_memory_bytes()},
               {"data_wait_seconds", 1e-9 * static_cast<double>(o.times.data_wait_ns)},
               {"compute_share", share(o.times.compute_ns)},
               {"exposed_communication_share", share(o.times.exposed_ns)},
               {"skipped_steps", skipped_steps},
               {"bad_samples", bad_samples},
               {"density", summary(o.density)},
               {"coverage", summary(o.coverage)}};
  // JSON has no infinities: the norm of a skipped step is absent.
  if (!o.skipped) line["grad_norm"] = o.gradient_norm;
  out_ << line.dump() << "\n" << std::flush;
  if (!out_) throw OutputError(fmt::format("{}: cannot be written (disk full?)", path_));
}

}  // namespace sprocket::runtime
