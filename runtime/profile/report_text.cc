// The report as people and as programs read it.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "runtime/profile/report.h"

#include <fmt/format.h>

namespace sprocket::runtime {
namespace {

using nlohmann::json;

std::string percent(double share) { return fmt::format("{:.1f} %", 100 * share); }

std::string bytes_text(double bytes) {
  if (bytes >= 1e9) return fmt::format("{:.2f} GB", bytes / 1e9);
  if (bytes >= 1e6) return fmt::format("{:.2f} MB", bytes / 1e6);
  if (bytes >= 1e3) return fmt::format("{:.1f} kB", bytes / 1e3);
  return fmt::format("{:.0f} B", bytes);
}

std::string verdict(const Report& r) {
  if (r.mesh.world() == 1) {
    return fmt::format("One rank: nothing was communicated; {} of a step is compute.",
                       percent(r.compute_share));
  }
  const double rest = std::max(0.0, 1 - r.compute_share - r.exposed_share - r.data_wait_share);
  const std::pair<double, const char*> costs[] = {{r.compute_share, "Compute"},
                                                  {r.exposed_share, "Exposed communication"},
                                                  {r.data_wait_share, "Waiting for data"},
                                                  {rest, "Everything else"}};
  const auto& largest = *std::max_element(std::begin(costs), std::end(costs));
  std::string slowest;
  if (r.imbalance > 1.05) {
    slowest = fmt::format("; rank {} computes {:.2f} times as long as the mean", r.slowest_rank,
                          r.imbalance);
  }
  return fmt::format("{} dominates with {} of a step; exposed communication takes {}{}.",
                     largest.second, percent(largest.first), percent(r.exposed_share), slowest);
}

// Columns as wide as their widest cell; the first is left-aligned, the others right-aligned.
std::string table(const std::vector<std::vector<std::string>>& rows, size_t left_columns) {
  std::vector<size_t> widths(rows.front().size());
  for (const auto& row : rows) {
    for (size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], row[c].size());
  }
  std::string text;
  for (const auto& row : rows) {
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

std::string range_text(const RunningRange& range) {
  return fmt::format("{:.3f} ({:.3f} to {:.3f})", range.mean(), range.min, range.max);
}

std::string memory_text(const MemoryUse& memory) {
  const auto text = [](int64_t bytes) { return bytes_text(static_cast<double>(bytes)); };
  return fmt::format(
      "Peak memory {}{} of the largest rank: parameters {}, gradients {}, moments {}, the rest {}.",
      text(memory.peak),
      memory.tensor_peak > 0
          ? fmt::format(" of the device ({} in tensors)", text(memory.tensor_peak))
          : "",
      text(memory.parameters), text(memory.gradients), text(memory.moments), text(memory.rest()));
}

json range_json(const RunningRange& range) {
  return {{"mean", range.mean()}, {"min", range.min}, {"max", range.max}};
}

}  // namespace

std::string report_text(const Report& r) {
  std::string text = "\nCommunication against compute\n";
  if (r.steps == 0) {
    return text + "  No step was measured: the run ended within output.report_warmup_steps.\n";
  }
  text += fmt::format("  {}\n", verdict(r));
  text += fmt::format(
      "  {} steps of {:.3f} s, {:.0f} tokens/s on {} {} (data {} x outer {} x ulysses {})\n\n",
      r.steps, r.step_seconds, r.tokens_per_second, r.mesh.world(),
      r.mesh.world() == 1 ? "rank" : "ranks", r.mesh.data, r.mesh.outer, r.mesh.ulysses);
  text += table({{"share of a step", "compute", "exposed communication", "data wait", "overlap"},
                 {"", percent(r.compute_share), percent(r.exposed_share),
                  percent(r.data_wait_share), percent(r.overlap)}},
                1);

  std::vector<std::vector<std::string>> rows = {{"rank", "compute ms", "communication ms",
                                                 "exposed ms", "waited for others ms", "data ms",
                                                 "sent"}};
  for (const RankRow& row : r.ranks) {
    rows.push_back({fmt::format("{}{}", row.rank, row.rank == r.slowest_rank ? " (slowest)" : ""),
                    fmt::format("{:.1f}", row.compute_ms),
                    fmt::format("{:.1f}", row.communication_ms),
                    fmt::format("{:.1f}", row.exposed_ms), fmt::format("{:.1f}", row.wait_ms),
                    fmt::format("{:.1f}", row.data_wait_ms), bytes_text(row.bytes_sent)});
  }
  text += "\n" + table(rows, 1);

  if (!r.operations.empty()) {
    rows = {
        {"group", "operation", "phase", "per step", "messages", "sent", "transfer ms", "wait ms"}};
    for (const OperationRow& row : r.operations) {
      rows.push_back({row.key.group, comm::name_of(row.key.op), name_of(row.key.phase),
                      fmt::format("{:.1f}", row.operations), fmt::format("{:.1f}", row.messages),
                      bytes_text(row.bytes_sent), fmt::format("{:.2f}", row.transfer_ms),
                      fmt::format("{:.2f}", row.wait_ms)});
    }
    text += "\n" + table(rows, 3);
  }
  if (!r.layers.empty()) {
    rows = {{"layer", "density mean (min to max)", "coverage mean (min to max)"}};
    for (size_t layer = 0; layer < r.layers.size(); ++layer) {
      rows.push_back({std::to_string(layer), range_text(r.layers[layer].density),
                      range_text(r.layers[layer].coverage)});
    }
    text += "\n" + table(rows, 1);
  }
  text += fmt::format("\n  {}\n  Columns are per rank and step.\n", memory_text(r.memory));
  if (r.remote_kv) text += fmt::format("  {}.\n", r.remote_kv->text());
  if (r.lost_records > 0) {
    text += fmt::format("  {} operations were not recorded: the recorder's ring ran over.\n",
                        r.lost_records);
  }
  return text;
}

std::string report_json(const Report& r) {
  json document = {
      {"schema", kProfileSchema},
      {"mesh", {{"data", r.mesh.data}, {"outer", r.mesh.outer}, {"ulysses", r.mesh.ulysses}}},
      {"steps", r.steps},
      {"step_seconds", r.step_seconds},
      {"tokens_per_second", r.tokens_per_second},
      {"compute_share", r.compute_share},
      {"exposed_communication_share", r.exposed_share},
      {"data_wait_share", r.data_wait_share},
      {"overlap", r.overlap},
      {"slowest_rank", r.slowest_rank},
      {"imbalance", r.imbalance},
      {"peak_memory_bytes", r.memory.peak},
      {"memory",
       {{"parameters_bytes", r.memory.parameters},
        {"gradients_bytes", r.memory.gradients},
        {"moments_bytes", r.memory.moments},
        {"rest_bytes", r.memory.rest()}}},
      {"lost_records", r.lost_records},
      {"ranks", json::array()},
      {"operations", json::array()},
      {"layers", json::array()},
      {"compute_ms", json::object()}};
  if (r.memory.tensor_peak > 0) document["memory"]["tensors_peak_bytes"] = r.memory.tensor_peak;
  if (r.remote_kv) {
    json& choice = document["remote_kv"];
    choice["value"] = config::Parallel::RemoteKv_Name(r.remote_kv->value);
    if (r.remote_kv->by_memory) {
      const RemoteKvRoom& room = r.remote_kv->room;
      choice["rank"] = r.remote_kv->rank;
      choice["kept_bytes"] = room.kept;
      choice["fetched_bytes"] = room.fetched;
      choice["at_hand_bytes"] = room.at_hand;
    }
  }
  if (r.steps > 0) document["verdict"] = verdict(r);
  for (const RankRow& row : r.ranks) {
    document["ranks"].push_back({{"rank", row.rank},
                                 {"compute_ms", row.compute_ms},
                                 {"communication_ms", row.communication_ms},
                                 {"exposed_ms", row.exposed_ms},
                                 {"wait_ms", row.wait_ms},
                                 {"data_wait_ms", row.data_wait_ms},
                                 {"bytes_sent", row.bytes_sent}});
  }
  for (const OperationRow& row : r.operations) {
    document["operations"].push_back({{"group", row.key.group},
                                      {"operation", comm::name_of(row.key.op)},
                                      {"phase", name_of(row.key.phase)},
                                      {"operations", row.operations},
                                      {"messages", row.messages},
                                      {"bytes_sent", row.bytes_sent},
                                      {"transfer_ms", row.transfer_ms},
                                      {"wait_ms", row.wait_ms},
                                      {"matched", row.matched}});
  }
  for (const LayerRow& layer : r.layers) {
    document["layers"].push_back(
        {{"density", range_json(layer.density)}, {"coverage", range_json(layer.coverage)}});
  }
  for (const auto& [name, ms] : r.compute_ms) document["compute_ms"][name] = ms;
  return document.dump(2) + "\n";
}

}  // namespace sprocket::runtime
