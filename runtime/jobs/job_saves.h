// The checkpoints that a job saves on its way: in the background or not, what they cost the
// training, and what becomes of the job when one fails.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "configs/job.pb.h"
#include "runtime/checkpoint/checkpoint_saver.h"
#include "runtime/control/pulse.h"

namespace sprocket::runtime {

struct SavePolicy {
  // Training goes on while files are written; otherwise it waits.
  bool asynchronous = true;
  // Whether a save on the way that failed ends the job. One at the end does in any case.
  bool stop_on_failure = false;
  Retention retention;
};
SavePolicy save_policy(const config::Output& output);

class JobSaves {
 public:
  // Collective. `world` must outlive the object. `before_log` is called before anything is logged.
  // `pulse`, which may be null, is told of waits and of new checkpoints.
  JobSaves(comm::Communicator& world, const std::string& run_folder, const SavePolicy& policy,
           std::function<void()> before_log, control::Pulse* pulse = nullptr);

  // Between steps, all collective. A save that was found to have failed is logged and counted, or
  // its error is thrown, as the policy says.

  // Begins a save, after the end of the one under way. `tensors` is called once; what it returns is
  // borrowed until begin() returns.
  void begin(const CheckpointState& state, const std::function<CheckpointTensors()>& tensors);
  // Looks whether the save under way has ended; waits for nothing.
  void look();
  // Waits for the last save; its error is thrown whatever the job says.
  void finish();
  // Calls `job`. When all ranks leave it with an error, the save under way is waited for first, and
  // logged if it fails.
  void guard(const std::function<void()>& job);

  // The newest checkpoint that was completed; empty: none was.
  const std::string& newest() const { return newest_; }
  int64_t failed() const { return failed_; }
  // What this rank's training has waited for saves since the last call.
  double take_stall_seconds();

 private:
  template <class Function>
  auto counted(Function&& function);
  // Takes the outcome of a save that has ended.
  void close(const SaveOutcome& outcome, bool throws);
  void wait(bool throws);

  SavePolicy policy_;
  Timeline* timeline_;
  control::Pulse* pulse_;
  std::function<void()> before_log_;
  bool logs_;
  CheckpointSaver saver_;
  std::optional<SaveOutcome> ended_;  // of a save that was waited for, until the next call
  std::string newest_;
  int64_t failed_ = 0;
  int64_t stall_ns_ = 0;                           // since the last take_stall_seconds()
  int64_t began_ns_ = 0, stall_of_newest_ns_ = 0;  // of the newest save
};

}  // namespace sprocket::runtime
