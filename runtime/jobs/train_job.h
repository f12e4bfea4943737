// `sprocket train`: trains a video DiT by flow matching, from the data set to checkpoints, metrics,
// samples and the report of communication against compute.
#pragma once

#include <atomic>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <c10/core/Device.h>

#include "base/exit_code.h"
#include "configs/job.pb.h"
#include "parallel/comm/communicator.h"
#include "runtime/control/pulse.h"
#include "runtime/jobs/profile_only.h"

namespace sprocket::runtime {

struct TrainOptions {
  // Where to start: "none" (step 0; output.directory must not hold another run), "latest" (the
  // newest checkpoint of output.directory whose manifest verifies; step 0 when it has none), or the
  // path of a checkpoint folder or of a run's folder.
  std::string resume = "none";
  // Threads of this rank's kernels, compute.threads resolved; >= 1.
  int threads = 1;
  // Of the rank's tensors; whoever calls holds it (parallel/device/tensor_device.h).
  at::Device device = at::kCPU;
  // Bytes that this rank may use of its machine's memory, by which parallel.remote_kv: AUTO is
  // decided.
  int64_t memory = std::numeric_limits<int64_t>::max();
  // Rank 0 draws one live line on stderr instead of log lines.
  bool terminal = false;
  // Set from outside (a signal handler, another thread) to end the job after the current step with
  // a checkpoint. Any rank's flag stops all. May be null.
  const std::atomic<bool>* stop = nullptr;
  // Told what the job does, for whoever watches it; may be null.
  control::Pulse* pulse = nullptr;
  // Rank 0 prints the report to stdout at the end. profile.json is written in any case.
  bool print_report = true;
  std::optional<ProfileOnly> profile_only;
};

struct TrainResult {
  int64_t first_step = 0;                 // steps that a checkpoint brought
  int64_t last_step = 0;                  // steps done in all
  std::vector<double> losses;             // one for each step of this call, the same on all ranks
  std::vector<double> validation_losses;  // of this call, in order, the same on all ranks
  int64_t skipped_steps = 0;              // for gradients that were not finite, in this call
  std::string checkpoint;                 // the newest one; empty: none was written
  ExitCode exit_code = ExitCode::kOk;     // kInterrupted after a stop
};

// Collective over `world`. `job` is resolved for its size (config::load_job with a world). Results
// of equal calls are equal bit by bit. world's Timeline (options().timeline, may be null) receives
// the intervals of the report and must outlive the call. Throws ConfigError, InputError (data,
// checkpoint), OutputError (checkpoint, output folder), CommError, NonFiniteError. Checkpoints that
// were complete stay so, whatever is thrown. An error of one rank aborts `world`, so that the
// others fail with CommError that carries its text.
TrainResult run_training(const config::Job& job, std::unique_ptr<comm::Communicator> world,
                         const TrainOptions& options);

}  // namespace sprocket::runtime
