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

Finding find_mpirun() {
  const bool root_refused =
      geteuid() == 0 && (environment("OMPI_ALLOW_RUN_AS_ROOT") != "1" ||
                         environment("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM") != "1");
  return judge_mpirun(environment("PATH"), root_refused);
}

Finding describe_transports(const std::string& maps) {
  std::string text;
  for (const std::string kind : {"pml", "mtl", "btl"}) {
    const std::string prefix = "mca_" + kind + "_";
    std::vector<std::string> names;
    for (const std::string& file : loaded_files(maps, prefix)) {
      const std::string name = file.substr(file.rfind('/') + 1 + prefix.size());
      names.push_back(name.substr(0, name.find('.')));
    }
    if (names.empty()) continue;
    text += fmt::format("{}{} {}", text.empty() ? "" : "; ", kind, fmt::join(names, ", "));
  }
  return {Verdict::kGood, "transports",
          text.empty() ? "not to be told: this MPI has no components of their own files" : text,
          ""};
}

std::vector<Finding> describe_message_passing(int ranks) {
  return {{Verdict::kGood, "MPI",
           fmt::format("{}, {}", comm::mpi_library_version(),
                       ranks == 1 ? "started alone" : fmt::format("started as one of {}", ranks)),
           ""},
          describe_transports(own_maps())};
}

std::vector<Finding> check_message_passing() {
  std::vector<Finding> findings = {find_mpirun()};
  const comm::MpiSession session(nullptr, nullptr);
  for (Finding& finding : describe_message_passing(session.size()))
    findings.push_back(std::move(finding));
  return findings;
}

}  // namespace sprocket::launcher
