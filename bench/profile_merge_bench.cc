// Merging what many ranks recorded: events a second, and the most memory that it took.
//
//   profile_merge_bench FOLDER [RANKS] [STEPS] [LAYERS]
//
// writes files of RANKS ranks into FOLDER, merges them with and without a trace, and prints a JSON
// line. A layer has 24 intervals and 8 operations a step.
#include <sys/resource.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <string>

#include <fmt/format.h>

#include "runtime/profile/event_file.h"
#include "runtime/profile/html_report.h"
#include "runtime/profile/merge.h"

namespace sprocket::profile {
namespace {

constexpr int kIntervals = 24, kOperations = 8;
constexpr int64_t kUnit = 10'000;

events::Header header_of(int rank, int ranks, int64_t steps) {
  events::Header header;
  header.set_rank(rank);
  header.set_world(ranks);
  header.set_data(1);
  header.set_outer(ranks / 8);
  header.set_ulysses(8);
  header.set_strategy("SELECTED");
  header.set_host(fmt::format("node{}", rank / 8));
  header.set_device("CPU");
  header.set_job_kind("train");
  header.set_job_title("benchmark");
  header.set_job_identity("0");
  header.set_asked_steps(steps);
  header.set_heads(16);
  events::Group& world = *header.add_groups();
  world.set_name("world");
  for (int member = 0; member < ranks; ++member) world.add_members(member);
  events::Group& node = *header.add_groups();
  node.set_name("sp.ulysses");
  node.set_index(rank / 8);
  for (int member = 0; member < 8; ++member) node.add_members(rank / 8 * 8 + member);
  return header;
}

RecordedStep step_of(int rank, int64_t number, int layers) {
  RecordedStep step;
  step.step = number;
  int64_t now = step.begin_ns = rank * 3'600'000'000'000 + number * kUnit * 100 * layers;
  for (int layer = 0; layer < layers; ++layer) {
    for (int i = 0; i < kIntervals; ++i) {
      step.intervals.push_back({Activity::kCompute, Phase::kForward, static_cast<int16_t>(layer),
                                static_cast<uint32_t>(i % 12), now, now + kUnit, true});
      now += kUnit;
      if (i % 3 != 0) continue;
      RecordedOperation op;
      op.group = i == 0 && layer == 0 ? 0 : 1;
      op.op = comm::OpKind::kAllToAll;
      op.phase = Phase::kForward;
      op.layer = static_cast<int16_t>(layer);
      op.sequence = op.group == 0 ? number : (number * layers + layer) * kOperations + i / 3;
      op.start_ns = now - kUnit / 2;
      op.end_ns = now + kUnit;
      op.sent_bytes = op.volume_bytes = 1 << 20;
      op.messages = 7;
      step.operations.push_back(op);
      now += kUnit;
    }
    RecordedLayer& shares = step.layers.emplace_back();
    shares.density.add(0.1);
    shares.head_density.assign(16, {1, 10});
  }
  step.wall_ns = now - step.begin_ns;
  step.tokens = 100;
  return step;
}

double seconds_of(const auto& work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

int run(const std::string& folder, int ranks, int64_t steps, int layers) {
  std::filesystem::create_directories(folder);
  for (int rank = 0; rank < ranks; ++rank) {
    EventWriter file(event_file_path(folder, rank), header_of(rank, ranks, steps));
    for (int name = 0; name < 12; ++name) file.names().number_of(fmt::format("kernel.{}", name));
    for (int64_t step = 0; step < steps; ++step) file.append(step_of(rank, step, layers));
    file.end({});
  }
  Report report;
  const double merged = seconds_of([&] { report = merge_events(folder, {}); });
  const double traced = seconds_of([&] {
    report = merge_events(folder, {folder + "/trace.json", 1'000'000});
  });
  const double written = seconds_of([&] { html_report(report_json(report)); });
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const double events =
      static_cast<double>(ranks) * static_cast<double>(steps) * layers * (kIntervals + kOperations);
  fmt::print(
      "{{\"benchmark\": \"profile_merge\", \"ranks\": {}, \"steps\": {}, \"layers\": {}, "
      "\"events\": {:.0f}, \"merge_seconds\": {:.2f}, \"merge_with_trace_seconds\": {:.2f}, "
      "\"files_seconds\": {:.2f}, \"peak_bytes\": {}}}\n",
      ranks, steps, layers, events, merged, traced, written, usage.ru_maxrss * 1024);
  return report.window.complete ? 0 : 1;
}

}  // namespace
}  // namespace sprocket::profile

int main(int argc, char** argv) {
  if (argc < 2) {
    fmt::print(stderr, "usage: profile_merge_bench FOLDER [RANKS] [STEPS] [LAYERS]\n");
    return 2;
  }
  const auto number = [&](int place, int otherwise) {
    return argc > place ? std::atoi(argv[place]) : otherwise;
  };
  return sprocket::profile::run(argv[1], number(2, 1024), number(3, 10), number(4, 32));
}
