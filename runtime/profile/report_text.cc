#include "runtime/profile/report_text.h"

#include <algorithm>
#include <vector>

#include <fmt/format.h>

#include "runtime/profile/quantity.h"

namespace sprocket::profile {
namespace {

constexpr size_t kMostRanks = 16, kMostOperations = 12, kMostSlow = 5, kMostKernels = 12;

using Row = std::vector<std::string>;

// Columns as wide as their widest cell; the first ones are left-aligned, the others right-aligned.
std::string table(const std::vector<Row>& rows, size_t left_columns) {
  std::vector<size_t> widths(rows.front().size());
  for (const Row& row : rows) {
    for (size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], row[c].size());
  }
  std::string text = "\n";
  for (const Row& row : rows) {
    std::string line = " ";
    for (size_t c = 0; c < row.size(); ++c) {
      line += c < left_columns ? fmt::format(" {:<{}} ", row[c], widths[c])
                               : fmt::format(" {:>{}} ", row[c], widths[c]);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

std::string ms(double value) { return fmt::format("{:.1f}", value); }

std::string left_out(size_t all, size_t shown) {
  return all > shown ? fmt::format("  and {} more, in profile.json\n", all - shown) : "";
}

// The ranks with the most compute time where there are too many.
std::string ranks_table(const Report& r) {
  std::vector<RankRow> rows = r.ranks;
  if (rows.size() > kMostRanks) {
    std::stable_sort(rows.begin(), rows.end(), [](const RankRow& a, const RankRow& b) {
      return a.compute_ms > b.compute_ms;
    });
    rows.resize(kMostRanks);
  }
  std::vector<Row> cells = {{"rank", "step ms", "compute", "exposed", "copies", "data", "other",
                             "in flight", "waited", "made wait", "sent"}};
  for (const RankRow& row : rows) {
    cells.push_back({std::to_string(row.rank), ms(row.step_ms), ms(row.compute_ms),
                     ms(row.exposed_ms), ms(row.copies_ms), ms(row.data_wait_ms), ms(row.other_ms),
                     ms(row.communication_ms), ms(row.wait_ms), ms(row.caused_wait_ms),
                     bytes_text(row.sent_bytes)});
  }
  return table(cells, 1) + left_out(r.ranks.size(), rows.size());
}

std::string operations_table(const Report& r) {
  if (r.operations.empty()) return "";
  std::vector<Row> cells = {{"group", "operation", "phase", "calls", "messages", "sent",
                             "transfer ms", "wait ms", "GB/s"}};
  for (const OperationRow& row : r.operations) {
    if (cells.size() > kMostOperations) break;
    cells.push_back({row.group, row.op, row.phase, fmt::format("{:.1f}", row.calls),
                     fmt::format("{:.1f}", row.messages), bytes_text(row.payload_bytes),
                     fmt::format("{:.2f}", row.transfer_ms), fmt::format("{:.2f}", row.wait_ms),
                     row.busbw_gb_s ? fmt::format("{:.2f}", *row.busbw_gb_s) : ""});
  }
  return table(cells, 3) + left_out(r.operations.size(), kMostOperations);
}

std::string slowest_table(const Report& r) {
  if (r.slowest.empty()) return "";
  std::vector<Row> cells = {
      {"slowest", "phase", "step", "layer", "ms", "transfer ms", "late rank"}};
  for (const SlowOperation& row : r.slowest) {
    if (cells.size() > kMostSlow) break;
    cells.push_back({fmt::format("{}[{}] {} #{}", row.group, row.index, row.op, row.sequence),
                     row.phase, std::to_string(row.step),
                     row.layer < 0 ? "" : std::to_string(row.layer), ms(row.ms),
                     ms(row.transfer_ms), std::to_string(row.late_rank)});
  }
  return table(cells, 2);
}

std::string range_text(const std::optional<Range>& range) {
  return range ? fmt::format("{:.3f} ({:.3f} to {:.3f})", range->mean, range->min, range->max) : "";
}

std::string layers_table(const Report& r) {
  if (r.layers.empty()) return "";
  std::vector<Row> cells = {{"layer", "compute ms", "exposed ms", "imbalance",
                             "density mean (min to max)", "coverage mean (min to max)"}};
  for (const LayerRow& row : r.layers) {
    cells.push_back({std::to_string(row.layer), ms(row.compute_ms), ms(row.exposed_ms),
                     percent(row.imbalance), range_text(row.density), range_text(row.coverage)});
  }
  return table(cells, 1);
}

std::string kernels_table(const Report& r) {
  if (r.kernels.empty()) return "";
  std::vector<Row> cells = {{"kernel", "phase", "calls", "ms", "TFLOP/s", "GB/s"}};
  for (const KernelRow& row : r.kernels) {
    if (cells.size() > kMostKernels) break;
    const auto rate = [&](const std::optional<double>& amount, double unit) {
      return amount && row.ms > 0 ? fmt::format("{:.3g}", *amount / (1e-3 * row.ms) / unit) : "";
    };
    cells.push_back({row.name, row.phase, fmt::format("{:.0f}", row.calls), ms(row.ms),
                     rate(row.flops, 1e12), rate(row.bytes, 1e9)});
  }
  return table(cells, 2) + left_out(r.kernels.size(), kMostKernels);
}

std::string prediction_table(const Report& r) {
  if (!r.prediction) return "";
  std::vector<Row> cells = {
      {"predicted for " + r.prediction->cluster, "predicted ms", "measured ms", "error"}};
  for (const PredictionRow& row : r.prediction->rows) {
    cells.push_back({row.what, ms(row.predicted_ms), ms(row.measured_ms),
                     fmt::format("{:+.0f} %", 100 * row.error)});
  }
  return table(cells, 1);
}

std::string memory_text(const Report& r) {
  if (!r.memory) return "";
  const auto text = [](int64_t bytes) { return bytes_text(static_cast<double>(bytes)); };
  const LargestMemory& memory = *r.memory;
  return fmt::format(
      "  Peak memory {}{} of rank {}: parameters {}, gradients {}, moments {}, the rest {}.\n",
      text(memory.peak_bytes),
      memory.tensors_peak_bytes
          ? fmt::format(" of the device ({} in tensors)", text(*memory.tensors_peak_bytes))
          : "",
      memory.rank, text(memory.parameters_bytes), text(memory.gradients_bytes),
      text(memory.moments_bytes), text(memory.rest_bytes));
}

std::string overhead_text(const Report& r) {
  if (!r.overhead) return "";
  return fmt::format(
      "  Recording took {} of a step ({} records, {}): {} recorded steps against as many that were "
      "not.\n",
      percent(r.overhead->share), fmt::format("{:.0f}", r.overhead->records),
      ms_text(r.overhead->recording_ms), r.overhead->steps);
}

}  // namespace

std::string report_text(const Report& r) {
  std::string text = "\nCommunication against compute\n";
  for (const std::string& line : r.verdict) text += fmt::format("  {}\n", line);
  if (r.window.steps == 0) return text;
  text += fmt::format("  {:.0f} tokens/s; data {} x outer {} x ulysses {}{}; overlap {}\n",
                      r.step.tokens_per_second, r.mesh.data, r.mesh.outer, r.mesh.ulysses,
                      r.mesh.strategy ? ", " + *r.mesh.strategy : "", percent(r.shares.overlap));
  text += ranks_table(r) + operations_table(r) + slowest_table(r) + layers_table(r) +
          kernels_table(r) + prediction_table(r);
  text += "\n" + memory_text(r);
  text += "  Columns are per rank and step.\n";
  if (r.remote_kv) {
    text += fmt::format("  K and V of other ranks: {}.\n",
                        r.remote_kv->value == "KEEP" ? "kept for the backward" : "fetched again");
  }
  text += overhead_text(r);
  for (const std::string& note : r.window.notes) text += fmt::format("  Note: {}.\n", note);
  return text;
}

}  // namespace sprocket::profile
