#include "runtime/attention/stage_times.h"

#include <algorithm>
#include <functional>
#include <set>
#include <string_view>

#include <fmt/format.h>

namespace sprocket::runtime {
namespace {

struct Stage {
  const char* name;
  const char* meaning;
  bool kernel = false;
};

// In the order of the table.
constexpr Stage kStages[] = {
    {"order", "tokens into block order and back"},
    {"pool", "block means"},
    {"prune", "choice of the queries"},
    {"sample", "sampled tokens"},
    {"select", "scores, choice and table"},
    {"global", "kernel, global tokens", true},
    {"local", "kernel, own keys", true},
    {"remote", "kernel, keys of other ranks", true},
    {"ring_step", "kernel, keys on the ring", true},
    {"coarse", "coarse branch"},
    {"combine", "branches and gates"},
    {"delta", "row sums for the backward"},
    {"plan", "what goes to which rank"},
    {"sum", "gradients from other ranks"},
    {"copy", "packing of messages"},
    {"communication", "waiting for other ranks"},
};

constexpr double kNanosecondsPerMs = 1e6;

std::string stage_of(const Interval& interval) {
  if (interval.activity == Activity::kCommunicationWait) return "communication";
  if (interval.activity == Activity::kCopy) return "copy";
  constexpr std::string_view kPrefix = "attention.";
  const std::string_view name = interval.name;
  return std::string(name.starts_with(kPrefix) ? name.substr(kPrefix.size()) : name);
}

bool is_kernel(const std::string& stage) {
  return std::any_of(std::begin(kStages), std::end(kStages),
                     [&](const Stage& known) { return known.kernel && stage == known.name; });
}

StageMs phase_times(const std::vector<Interval>& intervals, Phase phase, int64_t wall_ns) {
  StageMs times;
  double accounted = 0, kernel = 0;
  for (const Interval& interval : intervals) {
    if (interval.position.phase != phase) continue;
    const double ms = static_cast<double>(interval.end_ns - interval.begin_ns) / kNanosecondsPerMs;
    const std::string stage = stage_of(interval);
    times[stage] += ms;
    accounted += ms;
    if (is_kernel(stage)) kernel += ms;
  }
  const double total = static_cast<double>(wall_ns) / kNanosecondsPerMs;
  times["kernel"] = kernel;
  times["total"] = total;
  times["rest"] = std::max(0.0, total - accounted);
  return times;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

StageMs reduce(const std::vector<CallTimes>& calls, StageMs CallTimes::*phase,
               const std::function<double(std::vector<double>)>& reduction) {
  std::set<std::string> stages;
  for (const CallTimes& call : calls) {
    for (const auto& [stage, ms] : call.*phase) stages.insert(stage);
  }
  StageMs result;
  for (const std::string& stage : stages) {
    std::vector<double> values;
    for (const CallTimes& call : calls) {
      const auto found = (call.*phase).find(stage);
      values.push_back(found == (call.*phase).end() ? 0 : found->second);
    }
    result[stage] = reduction(std::move(values));
  }
  return result;
}

double at(const StageMs& times, const std::string& stage) {
  const auto found = times.find(stage);
  return found == times.end() ? 0 : found->second;
}

// The known stages in their order, then the others.
std::vector<std::pair<std::string, std::string>> stages_of(const CallTimes& times) {
  std::set<std::string> present;
  for (const StageMs* phase : {&times.forward, &times.backward}) {
    for (const auto& [stage, ms] : *phase) present.insert(stage);
  }
  for (const char* summary : {"kernel", "total", "rest"}) present.erase(summary);
  std::vector<std::pair<std::string, std::string>> stages;
  for (const Stage& known : kStages) {
    if (present.erase(known.name) > 0) stages.emplace_back(known.name, known.meaning);
  }
  for (const std::string& other : present) stages.emplace_back(other, "");
  stages.emplace_back("rest", "allocation and what no stage names");
  stages.emplace_back("total", "");
  return stages;
}

std::string cell(const StageMs& times, const std::string& stage) {
  if (!times.contains(stage)) return fmt::format("{:>11} {:>7}", "-", "");
  const double ms = at(times, stage), total = at(times, "total");
  return fmt::format("{:>11.3f} {:>5.1f} %", ms, total > 0 ? 100 * ms / total : 0);
}

std::string rate(double flops, double ms) {
  return ms > 0 ? fmt::format("{:>11.1f}", flops / (ms * 1e6)) : fmt::format("{:>11}", "-");
}

}  // namespace

CallTimes call_times(const std::vector<Interval>& intervals, int64_t forward_ns,
                     int64_t backward_ns) {
  CallTimes times;
  times.forward = phase_times(intervals, Phase::kForward, forward_ns);
  if (backward_ns > 0) times.backward = phase_times(intervals, Phase::kBackward, backward_ns);
  return times;
}

CallTimes median_times(const std::vector<CallTimes>& calls) {
  return {reduce(calls, &CallTimes::forward, median), reduce(calls, &CallTimes::backward, median)};
}

CallTimes largest_times(const std::vector<CallTimes>& ranks) {
  const auto largest = [](std::vector<double> values) {
    return *std::max_element(values.begin(), values.end());
  };
  return {reduce(ranks, &CallTimes::forward, largest),
          reduce(ranks, &CallTimes::backward, largest)};
}

std::string stage_table(const CallTimes& times, double forward_flops, double backward_flops) {
  const bool backward = !times.backward.empty();
  std::string text = fmt::format("  {:<14}  {:>11} {:>7}", "stage", "forward ms", "");
  if (backward) text += fmt::format("  {:>11} {:>7}", "backward ms", "");
  text += '\n';
  for (const auto& [stage, meaning] : stages_of(times)) {
    std::string line = fmt::format("  {:<14}  {}", stage, cell(times.forward, stage));
    if (backward) line += "  " + cell(times.backward, stage);
    if (!meaning.empty()) line += "   " + meaning;
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + '\n';
  }
  for (const auto& [label, stage] :
       {std::pair{"GFLOP/s kernel", "kernel"}, std::pair{"GFLOP/s total", "total"}}) {
    text += fmt::format("  {:<14}  {}", label, rate(forward_flops, at(times.forward, stage)));
    if (backward) {
      text += fmt::format("  {:>7}  {}", "", rate(backward_flops, at(times.backward, stage)));
    }
    text += '\n';
  }
  return text;
}

}  // namespace sprocket::runtime
