#include "runtime/profile/merge.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>

#include <fmt/format.h>

#include "base/error.h"
#include "runtime/profile/clock_offsets.h"
#include "runtime/profile/event_folder.h"
#include "runtime/profile/report_rows.h"
#include "runtime/profile/step_timeline.h"
#include "runtime/profile/trace_file.h"
#include "runtime/profile/verdict.h"
#include "runtime/profile/window_sums.h"

namespace sprocket::profile {
namespace {

void fill_header(const EventFolder& folder, Report& report) {
  const events::Header& header = folder.header();
  report.program = {"sprocket", header.program_version()};
  report.job = {header.job_kind(), header.job_title(), header.job_description(),
                header.job_identity()};
  report.machine.device = header.device();
  report.machine.threads = header.threads();
  std::map<std::string, int> hosts;
  for (const std::string& host : folder.hosts()) {
    if (!host.empty()) ++hosts[host];
  }
  for (const auto& [name, ranks] : hosts) report.machine.hosts.push_back({name, ranks});
  report.mesh = {header.data(), header.outer(), header.ulysses(), {}};
  if (!header.strategy().empty()) report.mesh.strategy = header.strategy();
  report.window.asked = header.asked_steps();
  for (int phase = 0; phase < kPhases; ++phase) {
    report.phases.push_back(name_of(static_cast<Phase>(phase)));
  }
}

// Where the steps begin in the ranks' files, to come back to one.
struct StepPlaces {
  double seconds;
  std::vector<int64_t> places;
};

void fill_timeline(EventFolder& folder, const GroupTable& groups,
                   const std::vector<StepPlaces>& steps, Report& report) {
  const auto middle =
      std::min_element(steps.begin(), steps.end(), [&](const StepPlaces& a, const StepPlaces& b) {
        const auto distance = [&](const StepPlaces& step) {
          return std::abs(step.seconds - report.step.median_seconds);
        };
        return distance(a) < distance(b);
      });
  const std::vector<RankStep> ranks = folder.at(middle->places);
  const auto operations = match_operations(groups, ranks);
  report.timeline = step_timeline(ranks, clock_offsets(ranks, operations));
}

}  // namespace

Report merge_events(const std::string& path, const MergeOptions& options) {
  EventFolder folder(path);
  const std::vector<const events::Header*> headers = folder.headers();
  const GroupTable groups(headers);
  const std::vector<std::string> hosts = folder.hosts();
  std::optional<TraceFile> trace;
  if (!options.trace.empty()) trace.emplace(options.trace, options.most_trace_events);

  Report report;
  fill_header(folder, report);
  WindowSums sums;
  std::vector<StepPlaces> steps;
  while (const auto step = folder.next()) {
    const bool recorded = step->front().step.recorded;
    const auto operations = match_operations(groups, *step);
    sums.add(*step, operations, hosts);
    if (!recorded) continue;
    if (steps.empty()) report.window.first_step = step->front().step.step;
    steps.push_back({sums.seconds.back(), folder.places()});
    if (trace) trace->add(*step, operations, clock_offsets(*step, operations));
  }
  report.window.steps = sums.steps();
  report.window.complete = folder.complete() && sums.steps() == report.window.asked;
  report.window.missing_ranks = folder.missing();
  report.window.notes = folder.notes();
  if (trace) {
    trace->close();
    if (trace->full()) {
      report.window.notes.push_back(fmt::format(
          "trace.json holds the first {} of {} steps of {} ranks: {} events, of at most {}",
          trace->steps(), sums.steps(), trace->ranks(), trace->events(),
          options.most_trace_events));
    }
  }
  if (sums.steps() == 0) {
    report.window.notes.push_back("no step that all ranks have was recorded");
    report.verdict = {"No step was recorded: the run ended before the window."};
    return report;
  }
  fill_rows(folder, sums, report);
  fill_timeline(folder, groups, steps, report);
  if (report.window.lost_records > 0) {
    report.window.notes.push_back(fmt::format(
        "{} operations were not recorded: a recorder's ring ran over", report.window.lost_records));
  }
  std::vector<int> ranks;
  for (const events::Header* header : headers) ranks.push_back(header->rank());
  report.verdict = verdict(report, find_blame(sums, ranks));
  return report;
}

}  // namespace sprocket::profile
