// The ranks that a subcommand runs on: MPI, logging, and the job's world communicator.
#pragma once

#include <chrono>
#include <functional>
#include <memory>

#include "base/exit_code.h"
#include "base/log.h"
#include "base/timeline.h"
#include "configs/job.pb.h"
#include "launcher/supervised.h"
#include "parallel/comm/communicator.h"
#include "parallel/device/tensor_device.h"

namespace sprocket::launcher {

// A subcommand's view of the MPI job. All functions are collective unless said otherwise.
class Session {
 public:
  Session(int rank, int size, control::Pulse& pulse, Supervised* supervised)
      : rank_(rank), size_(size), pulse_(pulse), supervised_(supervised) {}

  int rank() const { return rank_; }  // not collective
  int size() const { return size_; }  // not collective
  bool first() const { return rank_ == 0; }
  // What the job says of itself: to its supervisor, or when it ends. Not collective.
  control::Pulse* pulse() const { return &pulse_; }
  // Null without one. Not collective.
  Supervised* supervised() const { return supervised_; }

  // Runs `work` on every rank; if it throws on any, all throw that error. For what reads the same
  // files on all ranks and may not communicate. `patience`: how long ranks that are done wait for
  // those that are not.
  void run_on_all(const std::function<void()>& work,
                  std::chrono::milliseconds patience = std::chrono::minutes(10)) const;

  // A communicator of all ranks with the job's limits and checks. `timeline` outlives it.
  std::unique_ptr<comm::Communicator> make_world(const config::Parallel& parallel,
                                                 Timeline* timeline) const;

 private:
  int rank_;
  int size_;
  control::Pulse& pulse_;
  Supervised* supervised_;
};

// Whether this process is one of several that mpirun started (Open MPI, or a PMI launcher).
bool started_by_mpirun();

// Starts MPI (without mpirun: a world of one), sets logging up, and runs `work`. Errors are said
// here and returned as their exit codes: those that all ranks throw together (runtime::AgreedError)
// by rank 0 alone, any other by the rank that met it, which then ends the job on all ranks. An
// operation that was not completed in time leaves a post-mortem (launcher/post_mortem.h) first.
// `contact`: where the supervisor is found, which hears of all that; empty: there is none.
ExitCode run_on_ranks(LogLevel level, const std::function<ExitCode(const Session&)>& work,
                      const std::string& contact = "");

// compute.threads, or the rank's share of the processors that it may use. Collective over `world`.
int resolve_threads(const config::Compute& compute, comm::Communicator& world);

// What compute.device asks for; for CUDA one of the host's devices
// (parallel/device/device_ordinal.h). Whoever holds it keeps it until tensors and communicators are
// gone. Collective over `world`; all throw when one rank has no device.
parallel::TensorDevice take_device(const config::Compute& compute, comm::Communicator& world);

// Bytes that this rank's tensors may take. Of the processor's memory its share of what its host can
// give to new programs, limits of the control group included; of a device its share of what is free
// there. Collective over `world`.
int64_t resolve_memory(const config::Compute& compute, const parallel::TensorDevice& device,
                       comm::Communicator& world);

}  // namespace sprocket::launcher
