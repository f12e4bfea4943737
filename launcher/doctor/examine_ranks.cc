#include "launcher/doctor/examine_ranks.h"

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include <fmt/format.h>

#include "base/error.h"
#include "base/host_name.h"
#include "launcher/build_info.h"
#include "launcher/doctor/clocks.h"
#include "launcher/doctor/devices.h"
#include "launcher/doctor/libraries.h"
#include "launcher/doctor/machine.h"
#include "launcher/doctor/message_passing.h"
#include "launcher/doctor/network.h"
#include "launcher/doctor/pairs.h"
#include "launcher/doctor/ranks.h"
#include "launcher/launch/start_command.h"
#include "launcher/session.h"
#include "parallel/comm/mpi_backend.h"
#include "runtime/jobs/rank_agreement.h"

namespace sprocket::launcher {
namespace {

namespace fs = std::filesystem;

// Of a single wait: whoever is that late is not going to come.
constexpr std::chrono::seconds kPatience{60};

RankReport own_report(const Session& session) {
  RankReport report;
  report.rank = session.rank();
  report.host = own_host_name();
  report.program =
      fmt::format("sprocket {}, {}, {}, CUDA {}", kVersion, kCompiler, kBuildType, kCuda);
  report.mpi = comm::mpi_library_version();
  report.cores = usable_cores();
  report.shared_memory = free_shared_memory();
  report.link_rate = fastest_link_rate();
  report.findings = check_machine();
  for (Finding& finding : check_libraries()) report.findings.push_back(std::move(finding));
  for (Finding& finding : check_devices()) report.findings.push_back(std::move(finding));
  for (Finding& finding : describe_message_passing(session.size())) {
    report.findings.push_back(std::move(finding));
  }
  report.findings.push_back(judge_synchronisation(clock_synchronisation()));
  return report;
}

std::vector<RankReport> gather(comm::Communicator& world, const RankReport& own) {
  std::vector<RankReport> reports;
  for (const std::string& text : runtime::gather_text(world, text_of(own))) {
    reports.push_back(report_of(text));
  }
  return reports;
}

// One rank after the other, for those of a host share its memory.
double measure_copies(comm::Communicator& world) {
  double rate = 0;
  for (int rank = 0; rank < world.size(); ++rank) {
    world.barrier();
    if (rank == world.rank()) rate = measure_copy_rate();
  }
  return rate;
}

ExitCode conclude(const std::vector<RankReport>& reports, const std::vector<ClockOffset>& offsets,
                  const std::vector<PairTime>& times) {
  std::vector<Finding> findings = {
      describe_ranks(reports), judge_versions(reports), judge_cores_per_rank(reports),
      judge_shared_memory_of_ranks(reports), judge_clock_offsets(offsets, reports)};
  for (Finding& finding : judge_pairs(times, reports, find_crowded(reports))) {
    findings.push_back(std::move(finding));
  }
  for (Finding& finding : merge_findings(reports)) findings.push_back(std::move(finding));
  fmt::print("{}", format_findings(findings));
  return any_problem(findings) ? ExitCode::kConfig : ExitCode::kOk;
}

}  // namespace

ExitCode start_examination(const ExamineOptions& options) {
  StartPlan plan;
  plan.ranks = options.ranks;
  plan.hosts = options.hosts;
  const bool inside_slurm = std::getenv("SLURM_JOB_ID") != nullptr;
  const bool slurm = inside_slurm && options.hosts.empty();
  if (slurm) plan.starter = Starter::kSrun;
  // Inside an allocation mpirun reaches its hosts by Slurm.
  if (!options.hosts.empty() && !inside_slurm) plan.agent = options.agent;
  plan.processors = static_cast<int>(usable_cores().size());
  plan.folder = fs::current_path().string();
  plan.program = fs::read_symlink("/proc/self/exe").string();
  for (const char* name : {"PATH", "LD_LIBRARY_PATH"}) {
    if (std::getenv(name) != nullptr) plan.exported.emplace_back(name);
  }
  check_start_plan(plan);
  const Finding mpirun = find_mpirun();
  if (!slurm && mpirun.verdict != Verdict::kGood) {
    fmt::print("{}",
               format_findings({{Verdict::kProblem, mpirun.subject, mpirun.found, mpirun.remedy}}));
    return ExitCode::kConfig;
  }
  std::vector<std::string> words =
      start_command(plan, {"doctor", "--np", std::to_string(options.ranks)});
  std::vector<char*> pointers;
  for (std::string& word : words) pointers.push_back(word.data());
  pointers.push_back(nullptr);
  execvp(pointers[0], pointers.data());
  throw ConfigError(fmt::format("{}: cannot be started: {}", words[0], std::strerror(errno)));
}

ExitCode examine_as_rank(int expected) {
  return run_on_ranks(LogLevel::kNormal, [expected](const Session& session) {
    session.run_on_all([&] {
      if (expected == 0 || expected == session.size()) return;
      throw ConfigError(
          fmt::format("doctor: --np {}: mpirun started {} ranks; legal: --np {}, or none", expected,
                      session.size(), session.size()));
    });
    comm::CommunicatorOptions options;
    options.timeout = kPatience;
    const auto world = comm::make_mpi_world(options);
    ClockWatch watch;
    RankReport own = own_report(session);
    own.copy_rate = measure_copies(*world);
    const std::vector<ClockOffset> offsets = measure_clock_offsets(*world);
    const std::vector<PairTime> times = measure_pairs(*world, plan_pairs(world->size()));
    own.findings.push_back(judge_clock_run(watch.elapsed()));
    const std::vector<RankReport> reports = gather(*world, own);
    // Said once, by the rank that knows all.
    return session.first() ? conclude(reports, offsets, times) : ExitCode::kOk;
  });
}

}  // namespace sprocket::launcher
