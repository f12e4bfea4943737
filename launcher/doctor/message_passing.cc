#include "launcher/doctor/message_passing.h"

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <sstream>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "launcher/doctor/libraries.h"
#include "parallel/comm/mpi_backend.h"

namespace sprocket::launcher {
namespace {

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

}  // namespace

Finding judge_mpirun(const std::string& path, bool root_refused) {
  std::istringstream folders(path);
  for (std::string folder; std::getline(folders, folder, ':');) {
    const std::string file = folder + "/mpirun";
    if (access(file.c_str(), X_OK) != 0) continue;
    if (!root_refused) return {Verdict::kGood, "mpirun", file, ""};
    return {Verdict::kAdvice, "mpirun", file + ", which refuses to run as root",
            "export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1"};
  }
  return {Verdict::kProblem, "mpirun", "not found in PATH",
          "install Open MPI (apt-get install openmpi-bin), or run scripts/setup"};
}

std::vector<Finding> check_message_passing() {
  const bool root_refused =
      geteuid() == 0 && (environment("OMPI_ALLOW_RUN_AS_ROOT") != "1" ||
                         environment("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM") != "1");
  std::vector<Finding> findings = {judge_mpirun(environment("PATH"), root_refused)};
  const comm::MpiSession session(nullptr, nullptr);
  findings.push_back(
      {Verdict::kGood, "MPI",
       fmt::format("{}, {}; started as rank {} of {}", comm::mpi_library_version(),
                   fmt::join(loaded_files("libmpi.so"), ", "), session.rank(), session.size()),
       ""});
  return findings;
}

}  // namespace sprocket::launcher
