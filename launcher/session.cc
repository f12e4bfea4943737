#include "launcher/session.h"

#include <algorithm>
#include <chrono>
#include <exception>

#include "launcher/placement.h"
#include "launcher/report_error.h"
#include "parallel/comm/mpi_backend.h"
#include "runtime/jobs/rank_agreement.h"

namespace sprocket::launcher {
namespace {

// What is left to do when MPI has been finalised.
struct Outcome {
  ExitCode code = ExitCode::kOk;
  std::exception_ptr error;  // to be thrown
};

Outcome run(const Session& session, const comm::MpiSession& mpi,
            const std::function<ExitCode(const Session&)>& work) {
  try {
    return {work(session), nullptr};
  } catch (const std::exception& error) {
    const bool alone = session.size() == 1;
    const bool agreed = dynamic_cast<const runtime::AgreedError*>(&error) != nullptr;
    if (!alone && !agreed) mpi.abort_job(static_cast<int>(report_error(error)));
    return {exit_code_of(error), session.first() ? std::current_exception() : nullptr};
  }
}

}  // namespace

void Session::run_on_all(const std::function<void()>& work) const {
  std::exception_ptr error;
  {
    // Unwinding would abort the group, for which there is no reason when all ranks agree.
    const std::unique_ptr<comm::Communicator> group = comm::make_mpi_world({});
    try {
      runtime::run_on_all(*group, work);
    } catch (const runtime::AgreedError&) {
      error = std::current_exception();
    }
  }
  if (error) std::rethrow_exception(error);
}

std::unique_ptr<comm::Communicator> Session::make_world(const config::Parallel& parallel,
                                                        Timeline* timeline) const {
  comm::CommunicatorOptions options;
  options.timeout = std::chrono::milliseconds(
      static_cast<int64_t>(std::max(1.0, 1000 * parallel.timeout_seconds())));
  options.timeline = timeline;
  return comm::make_mpi_world(options);
}

ExitCode run_on_ranks(LogLevel level, const std::function<ExitCode(const Session&)>& work) {
  Outcome outcome;
  {
    const comm::MpiSession mpi(nullptr, nullptr);
    configure_logging(level, mpi.rank(), mpi.size());
    outcome = run(Session(mpi.rank(), mpi.size()), mpi, work);
  }
  if (outcome.error) std::rethrow_exception(outcome.error);
  return outcome.code;
}

int resolve_threads(const config::Compute& compute, comm::Communicator& world) {
  if (compute.threads() > 0) return compute.threads();
  return threads_for(world.rank(), gather_placements(world));
}

}  // namespace sprocket::launcher
