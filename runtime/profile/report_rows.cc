#include "runtime/profile/report_rows.h"

#include <algorithm>
#include <map>

namespace sprocket::profile {
namespace {

constexpr int kMostByteRows = 256;

double ratio(double a, double b) { return b > 0 ? a / b : 0; }
double as_double(int64_t value) { return static_cast<double>(value); }

RankMemory memory_of(const events::End& end) {
  RankMemory memory;
  memory.peak_bytes = end.peak_bytes();
  memory.parameters_bytes = end.parameters_bytes();
  memory.gradients_bytes = end.gradients_bytes();
  memory.moments_bytes = end.moments_bytes();
  memory.rest_bytes =
      end.peak_bytes() - end.parameters_bytes() - end.gradients_bytes() - end.moments_bytes();
  if (end.tensors_peak_bytes() > 0) memory.tensors_peak_bytes = end.tensors_peak_bytes();
  return memory;
}

class Rows {
 public:
  Rows(const EventFolder& folder, const WindowSums& sums, Report& report)
      : folder_(folder), sums_(sums), report_(report), steps_(as_double(sums.steps())) {}

  void fill() {
    fill_step();
    fill_ranks();
    fill_operations();
    fill_layers();
    fill_heads();
    fill_kernels();
    fill_bytes();
    fill_overhead();
  }

 private:
  // Of a sum over ranks and steps: ms per rank and step.
  double mean_ms(int64_t ns) const { return 1e-6 * as_double(ns) / (steps_ * ranks()); }
  double mean(double sum) const { return sum / (steps_ * ranks()); }
  double ranks() const { return static_cast<double>(sums_.ranks.size()); }
  int rank_of(size_t i) const { return folder_.reader(i).header().rank(); }

  void fill_step() {
    StepParts all;
    int64_t waiting = 0;
    for (const RankSums& rank : sums_.ranks) {
      all.add(rank.parts);
      waiting += rank.wait_ns;
      report_.window.lost_records += rank.lost_records;
    }
    const auto share = [&](int64_t ns) { return ratio(as_double(ns), as_double(all.wall_ns)); };
    report_.shares = {
        share(all.compute_ns), share(all.exposed_ns),
        share(all.copies_ns),  share(all.data_wait_ns),
        share(all.other_ns),   ratio(as_double(all.overlapped_ns), as_double(all.communication_ns)),
        share(waiting)};
    report_.each = sums_.each;
    report_.step.seconds = 1e-3 * mean_ms(all.wall_ns);
    report_.step.each_seconds = sums_.seconds;
    report_.step.median_seconds = median(sums_.seconds);
    report_.step.tokens_per_second =
        ratio(as_double(sums_.all_tokens), report_.step.seconds * steps_);
    if (sums_.executed_flops > 0) {
      report_.flops = StepWork{
          sums_.dense_equivalent_flops / steps_, sums_.executed_flops / steps_, {}, {}, {}};
    }
  }

  void fill_ranks() {
    for (size_t r = 0; r < sums_.ranks.size(); ++r) {
      const RankSums& rank = sums_.ranks[r];
      const auto ms = [&](int64_t ns) { return 1e-6 * as_double(ns) / steps_; };
      RankRow row;
      row.rank = rank_of(r);
      row.host = folder_.reader(r).header().host();
      row.step_ms = ms(rank.parts.wall_ns);
      row.compute_ms = ms(rank.parts.compute_ns);
      row.exposed_ms = ms(rank.parts.exposed_ns);
      row.copies_ms = ms(rank.parts.copies_ns);
      row.data_wait_ms = ms(rank.parts.data_wait_ns);
      row.other_ms = ms(rank.parts.other_ns);
      row.communication_ms = ms(rank.parts.communication_ns);
      row.wait_ms = ms(rank.wait_ns);
      row.caused_wait_ms = ms(rank.caused_wait_ns);
      row.sent_bytes = as_double(rank.sent_bytes) / steps_;
      row.tokens = as_double(rank.tokens) / steps_;
      if (const auto& end = folder_.reader(r).end()) {
        row.memory = memory_of(*end);
        if (!report_.memory || report_.memory->peak_bytes < row.memory->peak_bytes) {
          report_.memory = LargestMemory{*row.memory, row.rank};
        }
      }
      report_.ranks.push_back(row);
    }
  }

  void fill_operations() {
    std::map<std::string, RankSums::Sent> sent;
    for (const RankSums& rank : sums_.ranks) {
      for (const auto& [group, bytes] : rank.sent_by_group) {
        sent[group].all += bytes.all;
        sent[group].between_hosts += bytes.between_hosts;
      }
    }
    for (const auto& [key, sums] : sums_.operations.sums()) {
      OperationRow row;
      row.group = key.group;
      row.op = comm::name_of(key.op);
      row.phase = name_of(key.phase);
      row.calls = mean(as_double(sums.calls));
      row.messages = mean(as_double(sums.messages));
      row.payload_bytes = mean(as_double(sums.sent_bytes));
      row.wire_bytes = row.payload_bytes;
      const RankSums::Sent& group = sent[key.group];
      row.between_nodes_bytes =
          row.payload_bytes * ratio(as_double(group.between_hosts), as_double(group.all));
      row.matched = ratio(as_double(sums.matched_calls), as_double(sums.calls));
      const double per_call = ratio(row.calls, as_double(sums.matched_calls));
      row.transfer_ms = 1e-6 * as_double(sums.transfer_ns) * per_call;
      row.wait_ms = 1e-6 * as_double(sums.wait_ns) * per_call;
      if (sums.bus_bytes > 0 && sums.transfer_ns > 0) {
        row.busbw_gb_s = sums.bus_bytes / as_double(sums.transfer_ns);
      }
      report_.operations.push_back(row);
    }
    std::stable_sort(report_.operations.begin(), report_.operations.end(),
                     [](const OperationRow& a, const OperationRow& b) {
                       return a.transfer_ms + a.wait_ms > b.transfer_ms + b.wait_ms;
                     });
    report_.slowest = sums_.operations.slowest();
  }

  size_t layers() const {
    size_t layers = 0;
    for (const RankSums& rank : sums_.ranks) layers = std::max(layers, rank.layers.size());
    return layers;
  }

  void fill_layers() {
    for (size_t layer = 0; layer < layers(); ++layer) {
      LayerRow row;
      row.layer = static_cast<int>(layer);
      Spread density, coverage;
      double compute = 0, most = 0;
      for (size_t r = 0; r < sums_.ranks.size(); ++r) {
        if (sums_.ranks[r].layers.size() <= layer) continue;
        const LayerSums& sums = sums_.ranks[r].layers[layer];
        density.add(sums.density);
        coverage.add(sums.coverage);
        row.communication_ms += mean_ms(sums.communication_ns);
        row.exposed_ms += mean_ms(sums.exposed_ns);
        row.wait_ms += mean_ms(sums.wait_ns);
        compute += as_double(sums.compute_ns);
        if (as_double(sums.compute_ns) > most) {
          most = as_double(sums.compute_ns);
          row.slowest_rank = rank_of(r);
        }
      }
      row.compute_ms = 1e-6 * mean(compute);
      row.imbalance = compute > 0 ? most * ranks() / compute - 1 : 0;
      if (density.count > 0) row.density = Range{density.mean(), density.min, density.max};
      if (coverage.count > 0) row.coverage = Range{coverage.mean(), coverage.min, coverage.max};
      report_.layers.push_back(row);
    }
  }

  // Part / whole by layer and head, over all ranks; empty where nobody counted.
  template <class Member>
  std::vector<std::vector<double>> shares(Member member) const {
    std::vector<std::vector<double>> shares;
    bool any = false;
    for (size_t layer = 0; layer < layers(); ++layer) {
      std::vector<HeadPart> sums;
      for (const RankSums& rank : sums_.ranks) {
        if (rank.layers.size() <= layer) continue;
        const std::vector<HeadPart>& own = rank.layers[layer].*member;
        if (sums.size() < own.size()) sums.resize(own.size());
        for (size_t h = 0; h < own.size(); ++h) {
          sums[h].part += own[h].part;
          sums[h].whole += own[h].whole;
        }
      }
      std::vector<double>& of_layer = shares.emplace_back();
      for (const HeadPart& head : sums) {
        any = any || head.whole > 0;
        of_layer.push_back(ratio(head.part, head.whole));
      }
    }
    return any ? shares : std::vector<std::vector<double>>{};
  }

  void fill_heads() {
    auto density = shares(&LayerSums::head_density);
    if (density.empty()) return;
    report_.heads = Heads{std::move(density), {}};
    if (auto coverage = shares(&LayerSums::head_coverage); !coverage.empty()) {
      report_.heads->coverage = std::move(coverage);
    }
  }

  void fill_kernels() {
    std::map<std::pair<std::string, Phase>, KernelSums> all;
    for (const RankSums& rank : sums_.ranks) {
      for (const auto& [key, own] : rank.kernels) {
        KernelSums& sum = all[key];
        sum.activity = own.activity;
        sum.calls += own.calls;
        sum.ns += own.ns;
        sum.flops += own.flops;
        sum.bytes += own.bytes;
      }
    }
    for (const auto& [key, sum] : all) {
      KernelRow row;
      row.name = key.first;
      row.activity = name_of(sum.activity);
      row.phase = name_of(key.second);
      row.calls = mean(as_double(sum.calls));
      row.ms = mean_ms(sum.ns);
      if (sum.flops > 0) row.flops = mean(sum.flops);
      if (sum.bytes > 0) row.bytes = mean(sum.bytes);
      report_.kernels.push_back(row);
    }
    std::stable_sort(report_.kernels.begin(), report_.kernels.end(),
                     [](const KernelRow& a, const KernelRow& b) { return a.ms > b.ms; });
  }

  void fill_bytes() {
    const int world = folder_.world();
    const int block = (world + kMostByteRows - 1) / kMostByteRows;
    const int rows = (world + block - 1) / block;
    if (block > 1) report_.bytes_block = block;
    report_.bytes.assign(rows, std::vector<double>(rows));
    for (size_t r = 0; r < sums_.ranks.size(); ++r) {
      for (const auto& [to, bytes] : sums_.ranks[r].sent_to) {
        report_.bytes[rank_of(r) / block][to / block] += as_double(bytes) / steps_;
      }
    }
  }

  void fill_overhead() {
    if (sums_.unrecorded_seconds.empty()) return;
    Overhead overhead;
    overhead.recorded_seconds = median(sums_.seconds);
    overhead.unrecorded_seconds = median(sums_.unrecorded_seconds);
    overhead.share = overhead.recorded_seconds / overhead.unrecorded_seconds - 1;
    overhead.steps = std::min(sums_.steps(), std::ssize(sums_.unrecorded_seconds));
    for (size_t r = 0; r < sums_.ranks.size(); ++r) {
      const auto& end = folder_.reader(r).end();
      overhead.records += mean(as_double(sums_.ranks[r].records));
      overhead.recording_ms +=
          mean_ms(sums_.ranks[r].recording_ns + (end ? end->recording_ns() : 0));
    }
    report_.overhead = overhead;
  }

  const EventFolder& folder_;
  const WindowSums& sums_;
  Report& report_;
  const double steps_;
};

}  // namespace

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const size_t n = values.size();
  return n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

void fill_rows(const EventFolder& folder, const WindowSums& sums, Report& report) {
  Rows(folder, sums, report).fill();
}

}  // namespace sprocket::profile
