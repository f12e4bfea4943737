#include <cstdlib>

#include <fmt/format.h>

#include "base/error.h"
#include "launcher/command.h"
#include "launcher/doctor/devices.h"
#include "launcher/doctor/examine_ranks.h"
#include "launcher/doctor/libraries.h"
#include "launcher/doctor/machine.h"
#include "launcher/doctor/message_passing.h"
#include "launcher/host_flags.h"

namespace sprocket::launcher {
namespace {

struct DoctorFlags {
  int ranks = 0;  // 0: not given
  HostFlags hosts;
};

ExitCode examine_machine() {
  std::vector<Finding> findings = check_machine();
  for (auto check : {check_libraries, check_devices, check_message_passing}) {
    for (Finding& finding : check()) findings.push_back(std::move(finding));
  }
  fmt::print("{}", format_findings(findings));
  return any_problem(findings) ? ExitCode::kConfig : ExitCode::kOk;
}

// Open MPI's mpirun, and srun with PMIx or PMI, say so in the environment, also of a single rank.
bool is_rank() {
  for (const char* name : {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK"}) {
    if (std::getenv(name) != nullptr) return true;
  }
  return false;
}

ExitCode examine(const DoctorFlags& flags) {
  if (is_rank()) return examine_as_rank(flags.ranks);
  if (flags.ranks == 0) {
    if (!hosts_of(flags.hosts).empty()) {
      throw ConfigError("doctor: --hosts and --hostfile need --np, the number of ranks");
    }
    return examine_machine();
  }
  return start_examination({flags.ranks, hosts_of(flags.hosts), flags.hosts.agent});
}

void add_flags(CLI::App& command, DoctorFlags& flags) {
  command.add_option("--np", flags.ranks, "Ranks to start and to measure between.")
      ->option_text("N")
      ->check(CLI::Range(1, 1 << 20));
  add_host_flags(command, flags.hosts,
                 "With --np: hosts and how many ranks each takes, as a:8,b:8; without, this host, "
                 "or Slurm's allocation.");
}

}  // namespace

void add_doctor_command(CLI::App& parent, Action& action) {
  CLI::App& command = add_command(
      parent, "doctor",
      "Checks whether jobs can run on this machine, and says what to do about what it finds.\n"
      "Looks at processor, memory, shared memory, limits, and the libraries and their versions.\n"
      "With --np it starts ranks, and looks at each of them, at clocks, and at latency and\n"
      "bandwidth from rank to rank.",
      "sprocket doctor [--np N [--hosts HOSTS | --hostfile FILE]]",
      "\nExamples:\n"
      "  sprocket doctor\n"
      "  sprocket doctor --np 4\n"
      "  sprocket doctor --np 16 --hosts a:8,b:8\n" +
          exit_codes_text({ExitCode::kOk}) +
          fmt::format("\n  {:<4} something prevents jobs from running",
                      static_cast<int>(ExitCode::kConfig)));
  auto flags = std::make_shared<DoctorFlags>();
  add_flags(command, *flags);
  command.callback([flags, &action] { action = [flags] { return examine(*flags); }; });
}

}  // namespace sprocket::launcher
