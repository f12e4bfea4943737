#include "launcher/launch/supervisor.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>

#include <fmt/ranges.h>

#include "base/error.h"
#include "base/host_name.h"
#include "base/log.h"
#include "launcher/launch/attempt.h"
#include "launcher/launch/host_record.h"
#include "launcher/launch/job_mesh.h"
#include "launcher/launch/roll_call.h"

namespace sprocket::launcher {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kFirstPause{1000};
constexpr milliseconds kLongestPause{60'000};

// A path is right for the first attempt alone: what a later one goes on from lies in the run's own
// folder.
bool starts_elsewhere(const std::vector<std::string>& job) {
  const std::string resume = resume_of(job, "none");
  return resume != "none" && resume != "latest";
}

// An attempt, if all hosts answer.
AttemptResult attempt(const SuperviseOptions& options, const AttemptInput& input,
                      const AskedToEnd& asked, StatusService& status) {
  const std::chrono::seconds patience(input.started_before ? options.wait_for_hosts : 0);
  const auto [absences, crowded] = call_hosts(options.start, patience, asked);
  if (asked.times() > 0) {
    return {{Ending::kAborted, "asked to stop before the ranks were started", ExitCode::kAborted}};
  }
  if (absences.empty()) {
    if (crowded.empty()) return run_attempt(options, input, asked, status);
    if (!input.started_before) {
      spdlog::warn(
          "launch: {} {} more ranks than {} processors: a rank that waits yields to the others",
          fmt::join(crowded, ", "), crowded.size() == 1 ? "takes" : "take",
          crowded.size() == 1 ? "it has" : "they have");
    }
    SuperviseOptions yielding = options;
    yielding.start.crowded = true;
    return run_attempt(yielding, input, asked, status);
  }
  if (!input.started_before) throw ConfigError("launch: " + words_of(absences));
  Verdict verdict{Ending::kNodeLoss, words_of(absences), ExitCode::kComm, true, hosts_of(absences)};
  return {verdict, false, -1, input.failure_seen};
}

// Goes on without the hosts that keep failing; false: there are none, or the job needs them.
bool drop_hosts(SuperviseOptions& options, const HostRecord& record) {
  StartPlan& start = options.start;
  const std::vector<std::string> due = record.due(start.hosts);
  if (due.empty()) return false;
  const std::string names = fmt::format("{}", fmt::join(due, ", "));
  Retreat way;
  parallel::MeshShape mesh;
  try {
    mesh = mesh_of(options.job, start.ranks);
    way = retreat(start.hosts, due, mesh, [&](const parallel::MeshShape& lower) {
      return mesh_problem(options.job, lower);
    });
  } catch (const ConfigError& error) {
    way.why_not = error.what();
  }
  if (!way.possible) {
    spdlog::error("launch: {} keeps failing and is not dropped: {}", names, way.why_not);
    return false;
  }
  if (way.ranks == start.ranks) {
    spdlog::warn("launch: {} keeps failing and is dropped: the other hosts take all {} ranks",
                 names, way.ranks);
  } else {
    spdlog::warn(
        "launch: {} keeps failing and is dropped: the job goes on with {} ranks instead of {}, "
        "parallel.data: {} instead of {}, and the same samples in a step",
        names, way.ranks, start.ranks, way.data, mesh.data);
    options.job = with_data_degree(options.job, way.data);
  }
  start.hosts = std::move(way.hosts);
  start.ranks = way.ranks;
  return true;
}

JobFacts job_facts(const SuperviseOptions& options) {
  JobFacts facts;
  facts.job = options.job;
  facts.ranks = options.start.ranks;
  facts.host = own_host_name();
  facts.process = getpid();
  return facts;
}

}  // namespace

ExitCode supervise(const SuperviseOptions& given) {
  SuperviseOptions options = given;  // hosts may be dropped
  HostRecord record(options.drop_host_after);
  const AskedToEnd asked;
  StatusService status(options.status, job_facts(options));
  AttemptInput input{options.job, false, {}};
  int64_t newest_checkpoint = -1;
  int without_progress = 0;
  for (;;) {
    const AttemptResult result = attempt(options, input, asked, status);
    const Verdict& verdict = result.verdict;
    if (verdict.ending == Ending::kDone) return ExitCode::kOk;
    spdlog::error("launch: {}: {}", name_of(verdict.ending), verdict.sentence);
    if (!verdict.retry) return verdict.code;
    if (!options.restarts) {
      spdlog::error("launch: not started again: {} writes no checkpoints", options.job.front());
      return verdict.code;
    }
    if (result.checkpoint_step > newest_checkpoint) {
      newest_checkpoint = result.checkpoint_step;
      without_progress = 0;
      record.saved_a_checkpoint();
    }
    record.failed(verdict.hosts);
    if (newest_checkpoint < 0 && starts_elsewhere(options.job)) {
      spdlog::error(
          "launch: not started again: the run began from {} and has saved nothing of its own yet; "
          "empty its folder and launch it again",
          resume_of(options.job, ""));
      return verdict.code;
    }
    if (drop_hosts(options, record)) without_progress = 0;
    if (++without_progress > options.max_restarts) {
      spdlog::error("launch: given up: started again {} times without a new checkpoint",
                    options.max_restarts);
      return verdict.code;
    }
    const auto length =
        std::min(kFirstPause * (1 << std::min(without_progress - 1, 6)), kLongestPause);
    spdlog::warn("launch: starting again in {} s from the newest checkpoint (restart {} of {})",
                 length.count() / 1000, without_progress, options.max_restarts);
    status.facts().job = options.job;
    status.facts().ranks = options.start.ranks;
    status.facts().last_failure = fmt::format("{}: {}", name_of(verdict.ending), verdict.sentence);
    status.publish(nullptr);
    asked.pause(length);
    if (asked.times() > 0) {
      spdlog::warn("launch: asked to stop: not started again");
      return verdict.code;
    }
    ++status.facts().restarts;
    input = {with_resume(options.job, "latest"), input.started_before || result.started,
             result.failure_seen};
  }
}

}  // namespace sprocket::launcher
