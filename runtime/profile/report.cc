#include "runtime/profile/report.h"

#include <algorithm>
#include <map>
#include <tuple>

namespace sprocket::runtime {
namespace {

double ratio(double a, double b) { return b > 0 ? a / b : 0; }

// The same operation on all members of its group.
struct Match {
  OpKey key;
  std::vector<std::pair<int, int64_t>> durations;  // rank, ns
};

struct Matches {
  std::map<OpKey, OperationRow> rows;  // transfer_ms, wait_ms and matched as sums over members
  std::vector<double> wait_ns;         // by rank
};

Matches match_operations(const std::vector<RankProfile>& profiles) {
  std::map<std::tuple<GroupId, int64_t>, Match> found;
  for (size_t rank = 0; rank < profiles.size(); ++rank) {
    for (const OpTiming& timing : profiles[rank].timings) {
      const GroupId& group = profiles[rank].groups.at(timing.group);
      Match& match = found[{group, timing.sequence}];
      match.key = {group.name, static_cast<comm::OpKind>(timing.op),
                   static_cast<Phase>(timing.phase)};
      match.durations.emplace_back(static_cast<int>(rank), timing.duration_ns);
    }
  }
  Matches matches;
  matches.wait_ns.resize(profiles.size());
  for (const auto& [where, match] : found) {
    if (std::ssize(match.durations) != std::get<GroupId>(where).size) continue;
    int64_t transfer = match.durations.front().second;
    for (const auto& [rank, duration] : match.durations) transfer = std::min(transfer, duration);
    OperationRow& row = matches.rows[match.key];
    for (const auto& [rank, duration] : match.durations) {
      row.transfer_ms += 1e-6 * static_cast<double>(transfer);
      row.wait_ms += 1e-6 * static_cast<double>(duration - transfer);
      row.matched += 1;
      matches.wait_ns[rank] += static_cast<double>(duration - transfer);
    }
  }
  return matches;
}

void merge(RunningRange& into, const RunningRange& from) {
  if (from.count == 0) return;
  into.min = into.count == 0 ? from.min : std::min(into.min, from.min);
  into.max = into.count == 0 ? from.max : std::max(into.max, from.max);
  into.count += from.count;
  into.sum += from.sum;
}

std::vector<OperationRow> operation_rows(const std::vector<RankProfile>& profiles,
                                         const Matches& matches, double rank_steps) {
  std::map<OpKey, OpTotals> totals;
  for (const RankProfile& profile : profiles) {
    for (const auto& [key, own] : profile.operations) {
      OpTotals& sum = totals[key];
      sum.operations += own.operations;
      sum.bytes_sent += own.bytes_sent;
      sum.messages_sent += own.messages_sent;
    }
  }
  std::vector<OperationRow> rows;
  for (const auto& [key, sum] : totals) {
    OperationRow row;
    row.key = key;
    row.operations = static_cast<double>(sum.operations) / rank_steps;
    row.bytes_sent = static_cast<double>(sum.bytes_sent) / rank_steps;
    row.messages = static_cast<double>(sum.messages_sent) / rank_steps;
    if (const auto found = matches.rows.find(key); found != matches.rows.end()) {
      const OperationRow& matched = found->second;
      // Of the matched operations' mean, as often as there are operations in a step.
      row.matched = matched.matched / static_cast<double>(sum.operations);
      row.transfer_ms = ratio(matched.transfer_ms, matched.matched) * row.operations;
      row.wait_ms = ratio(matched.wait_ms, matched.matched) * row.operations;
    }
    rows.push_back(row);
  }
  std::stable_sort(rows.begin(), rows.end(), [](const OperationRow& a, const OperationRow& b) {
    return a.bytes_sent > b.bytes_sent;
  });
  return rows;
}

}  // namespace

Report make_report(const parallel::MeshShape& mesh, const std::vector<RankProfile>& profiles) {
  Report report;
  report.mesh = mesh;
  report.steps = profiles.front().steps;
  if (report.steps == 0) return report;
  const auto steps = static_cast<double>(report.steps);
  const auto ranks = static_cast<double>(profiles.size());
  const Matches matches = match_operations(profiles);
  double wall = 0, compute = 0, communication = 0, exposed = 0, overlapped = 0, data_wait = 0;
  double tokens = 0, slowest_compute = -1;
  std::map<std::string, double> compute_by_name;
  for (size_t r = 0; r < profiles.size(); ++r) {
    const RankProfile& p = profiles[r];
    const auto ms = [steps](double ns) { return 1e-6 * ns / steps; };
    RankRow row{static_cast<int>(r),
                ms(static_cast<double>(p.compute_ns)),
                ms(static_cast<double>(p.communication_ns)),
                ms(static_cast<double>(p.exposed_ns)),
                ms(matches.wait_ns[r]),
                ms(static_cast<double>(p.data_wait_ns))};
    for (const auto& [key, totals] : p.operations) {
      row.bytes_sent += static_cast<double>(totals.bytes_sent) / steps;
    }
    report.ranks.push_back(row);
    wall += static_cast<double>(p.wall_ns);
    compute += static_cast<double>(p.compute_ns);
    communication += static_cast<double>(p.communication_ns);
    exposed += static_cast<double>(p.exposed_ns);
    overlapped += static_cast<double>(p.overlapped_ns);
    data_wait += static_cast<double>(p.data_wait_ns);
    tokens += static_cast<double>(p.tokens);
    report.lost_records += p.lost_records;
    if (p.memory.peak > report.memory.peak) report.memory = p.memory;
    if (static_cast<double>(p.compute_ns) > slowest_compute) {
      slowest_compute = static_cast<double>(p.compute_ns);
      report.slowest_rank = static_cast<int>(r);
    }
    for (const auto& [name, ns] : p.compute_by_name_ns) {
      compute_by_name[name] += 1e-6 * static_cast<double>(ns) / (steps * ranks);
    }
    report.layers.resize(std::max(report.layers.size(), p.layers.size()));
    for (size_t layer = 0; layer < p.layers.size(); ++layer) {
      merge(report.layers[layer].density, p.layers[layer].density);
      merge(report.layers[layer].coverage, p.layers[layer].coverage);
    }
  }
  report.step_seconds = 1e-9 * wall / (steps * ranks);
  report.tokens_per_second = ratio(tokens, 1e-9 * wall / ranks);
  report.compute_share = ratio(compute, wall);
  report.exposed_share = ratio(exposed, wall);
  report.data_wait_share = ratio(data_wait, wall);
  report.overlap = ratio(overlapped, communication);
  report.imbalance = compute > 0 ? slowest_compute / (compute / ranks) : 1;
  report.operations = operation_rows(profiles, matches, steps * ranks);
  report.compute_ms.assign(compute_by_name.begin(), compute_by_name.end());
  std::stable_sort(report.compute_ms.begin(), report.compute_ms.end(),
                   [](const auto& a, const auto& b) { return a.second > b.second; });
  return report;
}

}  // namespace sprocket::runtime
