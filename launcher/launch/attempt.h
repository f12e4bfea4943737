// One run of the ranks under the supervisor's eyes, from their start to their end.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "launcher/launch/asked_to_end.h"
#include "launcher/launch/supervisor.h"
#include "launcher/launch/verdict.h"
#include "launcher/status/status_service.h"

namespace sprocket::launcher {

struct AttemptResult {
  Verdict verdict;
  bool started = false;          // a rank came to life
  int64_t checkpoint_step = -1;  // the newest that it saved
  std::chrono::steady_clock::time_point failure_seen;
};

struct AttemptInput {
  std::vector<std::string> job;
  bool started_before = false;
  // Of the attempt before, to say how long it took from there to the next step; the epoch: none.
  std::chrono::steady_clock::time_point failure_seen;
};

AttemptResult run_attempt(const SuperviseOptions& options, const AttemptInput& input,
                          const AskedToEnd& asked, StatusService& status);

}  // namespace sprocket::launcher
