// Runs a job until it is done: starts its ranks, watches them, says what went wrong, and starts
// them again from the newest checkpoint (docs/operations.md).
#pragma once

#include <string>
#include <vector>

#include "base/exit_code.h"
#include "launcher/launch/job_watch.h"
#include "launcher/launch/start_command.h"
#include "launcher/status/status_service.h"

namespace sprocket::launcher {

struct SuperviseOptions {
  StartPlan start;
  std::vector<std::string> job;  // "train", "--config", …
  bool restarts = true;          // of a job that can go on from a checkpoint
  int max_restarts = 3;          // in a row, without a new checkpoint in between
  int wait_for_hosts = 300;      // seconds that a restart waits for hosts that do not answer
  int drop_host_after = 2;       // failures without a new checkpoint; 0: never
  SectionLimits limits;
  bool finish_alone = false;  // the ranks go on when the supervisor is killed
  std::string listen;         // numeric address; empty: chosen by the hosts
  int port = 0;
  StatusOptions status;
};

// By the main thread, which handles SIGTERM, SIGINT and SIGUSR1 meanwhile. Throws ConfigError when
// nothing could be started, OutputError.
ExitCode supervise(const SuperviseOptions& options);

}  // namespace sprocket::launcher
