// The ranks that a subcommand runs on: MPI, logging, and the job's world communicator.
#pragma once

#include <functional>
#include <memory>

#include "base/exit_code.h"
#include "base/timeline.h"
#include "configs/job.pb.h"
#include "launcher/command.h"
#include "parallel/comm/communicator.h"

namespace sprocket::launcher {

class Session {
 public:
  virtual ~Session() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  // Collective, once. `timeline` outlives the communicator.
  virtual std::unique_ptr<comm::Communicator> make_world(const config::Parallel& parallel,
                                                         Timeline* timeline) = 0;
};

// Starts MPI (without mpirun: a world of one), sets logging up, and runs `work`. An error that all
// ranks agree on (their own input) is thrown on rank 0 and returned as its exit code on the others,
// so that it is printed once; then MPI is finalised. An error of one rank ends the job on all of
// them.
ExitCode run_on_ranks(LogLevel level, const std::function<ExitCode(Session&)>& work);

// compute.threads, or the rank's share of the processors that it may use. Collective over `world`.
int resolve_threads(const config::Compute& compute, comm::Communicator& world);

}  // namespace sprocket::launcher
