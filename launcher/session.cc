#include "launcher/session.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <exception>
#include <optional>

#include "launcher/placement.h"
#include "launcher/post_mortem.h"
#include "launcher/report_error.h"
#include "parallel/comm/backend.h"
#include "parallel/comm/checked_backend.h"
#include "parallel/comm/mpi_backend.h"
#include "parallel/comm/time_out.h"
#include "parallel/device/device_memory.h"
#include "parallel/device/device_ordinal.h"
#include "runtime/control/client.h"
#include "runtime/jobs/rank_agreement.h"

namespace sprocket::launcher {
namespace {

// A job ends the same when this cannot be written.
void say_who_was_late(const Session& session, const CommError& error) {
  std::optional<control::LastWords> words = session.pulse()->last_words();
  if (!words) return;
  *words->mutable_hello() = control::hello_of(session.rank(), session.size());
  words->set_error(error.what());
  PostMortemOptions options;
  options.folder = post_mortem_folder();
  options.rank = session.rank();
  options.ranks = session.size();
  try {
    if (const auto sentence = leave_post_mortem(options, *words)) {
      fmt::print(stderr, "hang: {}\n      the last operations of all ranks are in {}\n", *sentence,
                 options.folder);
    }
  } catch (const OutputError& failure) {
    report_error(failure);
  }
}

ExitCode run(const Session& session, const comm::MpiSession& mpi,
             const std::function<ExitCode(const Session&)>& work) {
  Supervised* const supervised = session.supervised();
  try {
    const ExitCode code = work(session);
    if (supervised) supervised->report_end(code);
    return code;
  } catch (const std::exception& error) {
    if (supervised) supervised->report(error);
    const bool agreed =
        session.size() == 1 || dynamic_cast<const runtime::AgreedError*>(&error) != nullptr;
    // Before MPI is finalised: mpirun kills the other ranks as soon as one has ended with an error.
    if (session.first() || !agreed) report_error(error);
    const auto* failed = dynamic_cast<const CommError*>(&error);
    if (failed && comm::is_time_out(*failed)) say_who_was_late(session, *failed);
    const ExitCode code = exit_code_of(error);
    if (!agreed) mpi.abort_job(static_cast<int>(code));
    return code;
  }
}

}  // namespace

void Session::run_on_all(const std::function<void()>& work,
                         std::chrono::milliseconds patience) const {
  std::exception_ptr error;
  {
    // Unwinding would abort the group, for which there is no reason when all ranks agree.
    comm::CommunicatorOptions options;
    options.timeout = patience;
    const std::unique_ptr<comm::Communicator> group = comm::make_mpi_world(options);
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
  if (!parallel.check_collectives()) return comm::make_mpi_world(options);
  return std::make_unique<comm::Communicator>(
      comm::make_checked_backend(comm::make_mpi_backend(), options.timeout), "world", options);
}

bool started_by_mpirun() {
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"}) {
    const char* size = std::getenv(name);
    if (size != nullptr && std::atoi(size) > 1) return true;
  }
  return false;
}

ExitCode run_on_ranks(LogLevel level, const std::function<ExitCode(const Session&)>& work,
                      const std::string& contact) {
  control::Pulse pulse;
  std::optional<Supervised> supervised;
  if (!contact.empty()) supervised.emplace(contact, pulse);
  const comm::MpiSession mpi(nullptr, nullptr);
  configure_logging(level, mpi.rank(), mpi.size());
  return run(Session(mpi.rank(), mpi.size(), pulse, supervised ? &*supervised : nullptr), mpi,
             work);
}

int resolve_threads(const config::Compute& compute, comm::Communicator& world) {
  if (compute.threads() > 0) return compute.threads();
  return threads_for(world.rank(), gather_placements(world));
}

parallel::TensorDevice take_device(const config::Compute& compute, comm::Communicator& world) {
  parallel::TensorDevice device;
  if (compute.device() == config::Compute::CPU) return device;
  const LocalRank local = local_rank(world.rank(), gather_placements(world));
  runtime::run_on_all(world, [&] {
    device = parallel::TensorDevice::cuda(parallel::device_ordinal(
        local.rank, local.ranks, parallel::visible_devices(), compute.ranks_per_device()));
  });
  return device;
}

int64_t resolve_memory(const config::Compute& compute, const parallel::TensorDevice& device,
                       comm::Communicator& world) {
  if (!device.device().is_cpu()) {
    return parallel::device_memory(device.device()).available / compute.ranks_per_device();
  }
  return memory_for(world.rank(), gather_placements(world));
}

}  // namespace sprocket::launcher
