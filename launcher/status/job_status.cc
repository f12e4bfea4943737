#include "launcher/status/job_status.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "launcher/launch/operation_words.h"
#include "launcher/launch/start_command.h"
#include "runtime/profile/shift.h"

namespace sprocket::launcher {
namespace {

using control::Heartbeat;
using control::StepTime;

// Steps of a rank whose medians are shown.
constexpr int kSteps = 16;
constexpr double kUnhealthyShare = 0.5;

struct RecentSteps {
  std::vector<double> wall, own, exposed_share;
};

RecentSteps recent_steps(const Heartbeat& beat) {
  RecentSteps recent;
  for (int i = std::max(0, beat.step_time_size() - kSteps); i < beat.step_time_size(); ++i) {
    const StepTime& time = beat.step_time(i);
    const double wall = 1e-6 * static_cast<double>(time.wall_us());
    recent.wall.push_back(wall);
    if (!time.has_exposed_us() || wall <= 0) continue;
    const double exposed = 1e-6 * static_cast<double>(time.exposed_us());
    recent.own.push_back(std::max(0.0, wall - exposed));
    recent.exposed_share.push_back(std::min(1.0, exposed / wall));
  }
  return recent;
}

std::optional<double> median_of(const std::vector<double>& values) {
  if (values.empty()) return std::nullopt;
  return profile::median(values);
}

RankStatus rank_status(int rank, const RankView& view, double now) {
  RankStatus status;
  status.rank = rank;
  if (!view.joined) return status;
  status.host = view.host;
  status.process = view.process;
  status.connected = view.connected;
  status.lost = view.lost;
  status.section = control::name_of(section_of(view.beat));
  if (const control::Operation* operation = newest(view.beat)) {
    status.operation = words_of(*operation);
    status.in_operation = operation->unfinished();
  }
  status.step = view.beat.has_step() ? view.beat.step() : -1;
  status.memory_bytes = view.beat.memory_bytes();
  status.silent_seconds = now - view.heard_at;
  const RecentSteps recent = recent_steps(view.beat);
  status.own_seconds = median_of(recent.own);
  status.exposed_share = median_of(recent.exposed_share);
  return status;
}

JobState state_of(const JobFacts& facts, const JobWatch* watch) {
  if (!watch) return JobState::kWaiting;
  if (facts.stop_asked) return JobState::kStopping;
  const bool begun = std::any_of(
      watch->ranks().begin(), watch->ranks().end(),
      [](const RankView& rank) { return section_of(rank.beat) != control::Section::kInit; });
  return begun ? JobState::kRunning : JobState::kStarting;
}

// From the rank that is furthest.
void add_steps(const JobWatch& watch, JobStatus& status) {
  const Heartbeat* furthest = nullptr;
  for (const RankView& rank : watch.ranks()) {
    if (!rank.beat.has_step() || rank.beat.step() < 0) continue;
    if (!furthest || rank.beat.step() > furthest->step()) furthest = &rank.beat;
  }
  if (!furthest) return;
  status.step = furthest->step();
  status.total_steps = furthest->total_steps();
  if (std::isfinite(furthest->loss())) status.loss = furthest->loss();
  status.step_seconds = median_of(recent_steps(*furthest).wall);
  if (!status.step_seconds || *status.step_seconds <= 0) return;
  if (furthest->has_tokens()) {
    status.tokens_per_second = static_cast<double>(furthest->tokens()) / *status.step_seconds;
  }
  if (status.total_steps > 0) {
    const int64_t left = std::max<int64_t>(0, status.total_steps - status.step);
    status.eta_seconds = static_cast<double>(left) * *status.step_seconds;
  }
}

void add_ranks(const JobWatch& watch, JobStatus& status) {
  double exposed = 0, longest = 0;
  int told = 0;
  for (size_t i = 0; i < watch.ranks().size(); ++i) {
    const RankView& view = watch.ranks()[i];
    const RankStatus& rank =
        status.ranks.emplace_back(rank_status(static_cast<int>(i), view, watch.now()));
    if (view.beat.has_folder()) status.folder = view.beat.folder();
    if (rank.exposed_share) {
      exposed += *rank.exposed_share;
      ++told;
    }
    if (rank.own_seconds && *rank.own_seconds > longest) {
      longest = *rank.own_seconds;
      status.slowest_rank = rank.rank;
    }
  }
  if (told > 0) status.exposed_share = exposed / told;
  if (status.ranks.size() == 1) status.slowest_rank.reset();
}

}  // namespace

const char* name_of(JobState state) {
  switch (state) {
    case JobState::kStarting:
      return "starting";
    case JobState::kRunning:
      return "running";
    case JobState::kStopping:
      return "stopping";
    case JobState::kWaiting:
      return "waiting to restart";
  }
  return "?";
}

JobStatus make_status(const JobFacts& facts, const JobWatch* watch) {
  JobStatus status;
  status.command = shell_line(facts.job);
  status.host = facts.host;
  status.process = facts.process;
  status.state = state_of(facts, watch);
  status.seconds = facts.seconds;
  status.restarts = facts.restarts;
  status.last_failure = facts.last_failure;
  status.checkpoint_step = facts.checkpoint_step;
  if (facts.checkpoint_step >= 0) status.checkpoint_age = facts.seconds - facts.checkpoint_at;
  if (!watch) {
    for (int rank = 0; rank < facts.ranks; ++rank) status.ranks.emplace_back().rank = rank;
    return status;
  }
  add_steps(*watch, status);
  add_ranks(*watch, status);
  status.idle_seconds = watch->now() - watch->last_progress();
  status.idle_limit = watch->limit();
  const std::optional<Straggler>& straggler = watch->stragglers().now();
  if (straggler) {
    status.straggler = straggler->rank;
    status.straggler_sentence = watch->sentence(*straggler);
  }
  return status;
}

std::string trouble_of(const JobStatus& status) {
  switch (status.state) {
    case JobState::kWaiting:
      return "the job waits to be started again: " + status.last_failure;
    case JobState::kStarting:
    case JobState::kRunning:
    case JobState::kStopping:
      break;
  }
  for (const RankStatus& rank : status.ranks) {
    if (rank.lost) return fmt::format("rank {} is lost", rank.rank);
  }
  if (status.idle_limit > 0 && status.idle_seconds > kUnhealthyShare * status.idle_limit) {
    return fmt::format("no rank has made progress for {:.0f} s; {:.0f} s count as a hang",
                       status.idle_seconds, status.idle_limit);
  }
  return "";
}

}  // namespace sprocket::launcher
