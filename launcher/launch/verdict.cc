#include "launcher/launch/verdict.h"

#include <csignal>
#include <cstring>

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace sprocket::launcher {
namespace {

constexpr int kSignalBase = 128;

bool is_of_a_signal(int status) { return status > kSignalBase && status < kSignalBase + NSIG; }

std::string cause_of(int status) {
  if (is_of_a_signal(status)) {
    const int signal = status - kSignalBase;
    return fmt::format("was ended by SIG{} ({})", sigabbrev_np(signal), sigdescr_np(signal));
  }
  return fmt::format("ended with exit code {}", status);
}

// The exit code of mpirun when a daemon of its own, on another host, does not answer.
constexpr int kDaemonLost = 205;

// A rank that is ended by a signal takes those of all hosts with it: mpirun ends them.
bool is_of_a_host_that_is_gone(const AttemptFacts& facts, const JobWatch& watch, int lost) {
  const std::string& host = watch.ranks()[lost].host;
  if (host == facts.own_host || is_of_a_signal(facts.status)) return false;
  for (const RankView& rank : watch.ranks()) {
    if (rank.host == host && !rank.lost) return false;
  }
  return true;
}

// The supervisor's own host is heard.
std::vector<std::string> other_silent_hosts(const AttemptFacts& facts, const JobWatch& watch) {
  std::vector<std::string> hosts = watch.silent_hosts();
  std::erase(hosts, facts.own_host);
  return hosts;
}

Verdict of_silence(const std::vector<std::string>& hosts, const std::string& how) {
  return {Ending::kNodeLoss,
          fmt::format("host{} {} {} not heard any more{}", hosts.size() == 1 ? "" : "s",
                      fmt::join(hosts, ", "), hosts.size() == 1 ? "is" : "are", how),
          ExitCode::kComm, true, hosts};
}

Verdict of_hang(const AttemptFacts& facts, const JobWatch& watch) {
  const std::vector<std::string> silent = other_silent_hosts(facts, watch);
  if (!silent.empty()) return of_silence(silent, ": " + facts.hang);
  const std::vector<std::string> suspected = watch.suspected_hosts();
  return {Ending::kHang, facts.hang, ExitCode::kComm, true,
          suspected.size() == 1 ? suspected : std::vector<std::string>()};
}

// A rank that dies before it reports is missed by nobody, but mpirun ends the others for it.
std::string who_died(const JobWatch& watch, int lost) {
  const std::vector<int> unheard = watch.never_joined();
  if (unheard.empty()) return watch.name_of(lost);
  return fmt::format("rank {}, of which nothing was heard yet, or {}", fmt::join(unheard, ", "),
                     watch.name_of(lost));
}

Verdict of_error(int rank, const JobWatch& watch) {
  const control::ErrorReport& error = *watch.ranks()[rank].error;
  const auto code = static_cast<ExitCode>(error.exit_code());
  const std::string who = watch.name_of(rank);
  if (error.out_of_memory()) {
    return {Ending::kOutOfMemory,
            fmt::format("{} ran out of memory: {}", who, error.message()),
            code,
            true,
            {watch.ranks()[rank].host}};
  }
  // The peer, which would be to blame, has not said anything.
  std::vector<std::string> hosts;
  if (!error.of_a_peer()) hosts.push_back(watch.ranks()[rank].host);
  const std::string sentence = fmt::format("{}: {}", who, error.message());
  switch (code) {
    case ExitCode::kConfig:
      return {Ending::kConfiguration, "the job or its command line is wrong", code, false};
    case ExitCode::kInput:
      return {Ending::kData, "a file is missing, damaged or of the wrong kind", code, false};
    case ExitCode::kOutput:
      return {Ending::kOutput, "results could not be written", code, false};
    case ExitCode::kNonFinite:
      return {Ending::kNumbers, "the loss is no longer a number", code, false};
    case ExitCode::kMismatch:
    case ExitCode::kRegression:
      return {Ending::kNumbers, "a comparison failed", code, false};
    case ExitCode::kInternal:
    case ExitCode::kComm:
    case ExitCode::kCuda:
      return {Ending::kCrash, sentence, code, true, hosts};
    case ExitCode::kOk:
    case ExitCode::kAborted:
    case ExitCode::kInterrupted:
      break;
  }
  return {Ending::kCrash, sentence, ExitCode::kComm, true, hosts};
}

Verdict of_death(const AttemptFacts& facts, const JobWatch& watch, int lost) {
  const std::string who = who_died(watch, lost);
  // Where a rank that nobody has heard of ran is not known.
  std::vector<std::string> hosts;
  if (watch.never_joined().empty()) hosts.push_back(watch.ranks()[lost].host);
  const std::vector<std::string> silent = other_silent_hosts(facts, watch);
  if (facts.status == kDaemonLost && !silent.empty()) return of_silence(silent, "");
  if (is_of_a_host_that_is_gone(facts, watch, lost)) {
    return {Ending::kNodeLoss,
            fmt::format("host {} is gone, with all its ranks", watch.ranks()[lost].host),
            ExitCode::kComm, true, hosts};
  }
  if (facts.status == kSignalBase + SIGKILL && facts.processes_killed_for_memory > 0) {
    return {Ending::kOutOfMemory,
            fmt::format("{} was killed by the kernel: its control group ran out of memory", who),
            ExitCode::kComm, true, hosts};
  }
  return {Ending::kCrash, fmt::format("{} {}", who, cause_of(facts.status)), ExitCode::kComm, true,
          hosts};
}

}  // namespace

const char* name_of(Ending ending) {
  switch (ending) {
    case Ending::kDone:
      return "done";
    case Ending::kInterrupted:
      return "interrupted";
    case Ending::kAborted:
      return "aborted";
    case Ending::kNotStarted:
      return "not started";
    case Ending::kConfiguration:
      return "configuration error";
    case Ending::kData:
      return "data error";
    case Ending::kOutput:
      return "output error";
    case Ending::kNumbers:
      return "wrong numbers";
    case Ending::kCrash:
      return "crash";
    case Ending::kOutOfMemory:
      return "out of memory";
    case Ending::kHang:
      return "hang";
    case Ending::kNodeLoss:
      return "node loss";
  }
  return "?";
}

Verdict judge(const AttemptFacts& facts, const JobWatch& watch) {
  constexpr int kSaved = static_cast<int>(ExitCode::kInterrupted);
  if (facts.abort_asked) {
    return {Ending::kAborted, "ended at once, as asked; what was saved before is intact",
            ExitCode::kAborted, false};
  }
  if (!facts.hang.empty()) return of_hang(facts, watch);
  // Ranks that have never been heard, or not for a while, could not say that they have finished.
  if (facts.status == 0 && !watch.first_lost()) return {};
  if (facts.status == kSaved) {
    return {Ending::kInterrupted,
            "stopped by a signal after a checkpoint; continue with --resume latest",
            ExitCode::kInterrupted, false};
  }
  Verdict verdict;
  const std::optional<int> error = watch.first_error(), lost = watch.first_lost();
  if (error && (!lost || !watch.ranks()[*error].error->of_a_peer())) {
    verdict = of_error(*error, watch);
  } else if (lost) {
    verdict = of_death(facts, watch, *lost);
  } else if (watch.any_joined() || facts.status > kSignalBase) {
    verdict = {Ending::kCrash, fmt::format("a rank {}", cause_of(facts.status)), ExitCode::kComm,
               true};
  } else {
    verdict = {Ending::kNotStarted,
               fmt::format("the ranks could not be started (exit code {}); what is wrong stands "
                           "above",
                           facts.status),
               facts.started_before ? ExitCode::kComm : ExitCode::kConfig, facts.started_before};
  }
  if (facts.stop_asked) verdict.retry = false;
  return verdict;
}

}  // namespace sprocket::launcher
