#include "launcher/launch/supervisor.h"

#include <poll.h>

#include <algorithm>
#include <chrono>

#include "base/log.h"
#include "launcher/launch/attempt.h"

namespace sprocket::launcher {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr milliseconds kFirstPause{1000};
constexpr milliseconds kLongestPause{60'000};

// Ends early when a signal comes: poll() does too.
void pause(milliseconds length, const AskedToEnd& asked) {
  constexpr int kSliceMs = 50;
  const auto until = steady_clock::now() + length;
  while (asked.times() == 0 && steady_clock::now() < until) poll(nullptr, 0, kSliceMs);
}

// A path is right for the first attempt alone: what a later one goes on from lies in the run's own
// folder.
bool starts_elsewhere(const std::vector<std::string>& job) {
  const std::string resume = resume_of(job, "none");
  return resume != "none" && resume != "latest";
}

}  // namespace

ExitCode supervise(const SuperviseOptions& options) {
  const AskedToEnd asked;
  AttemptInput input{options.job, false, {}};
  int64_t newest_checkpoint = -1;
  int without_progress = 0;
  for (;;) {
    const AttemptResult result = run_attempt(options, input, asked);
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
    }
    if (newest_checkpoint < 0 && starts_elsewhere(options.job)) {
      spdlog::error(
          "launch: not started again: the run began from {} and has saved nothing of its own yet; "
          "empty its folder and launch it again",
          resume_of(options.job, ""));
      return verdict.code;
    }
    if (++without_progress > options.max_restarts) {
      spdlog::error("launch: given up: started again {} times without a new checkpoint",
                    options.max_restarts);
      return verdict.code;
    }
    const auto length =
        std::min(kFirstPause * (1 << std::min(without_progress - 1, 6)), kLongestPause);
    spdlog::warn("launch: starting again in {} s from the newest checkpoint (restart {} of {})",
                 length.count() / 1000, without_progress, options.max_restarts);
    pause(length, asked);
    if (asked.times() > 0) {
      spdlog::warn("launch: asked to stop: not started again");
      return verdict.code;
    }
    input = {with_resume(options.job, "latest"), input.started_before || result.started,
             result.failure_seen};
  }
}

}  // namespace sprocket::launcher
