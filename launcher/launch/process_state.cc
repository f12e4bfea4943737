#include "launcher/launch/process_state.h"

#include <fstream>
#include <string>

#include <fmt/format.h>

namespace sprocket::launcher {
namespace {

// "/sys/fs/cgroup/…" of this process, where control groups are of version 2.
std::string control_group() {
  std::ifstream file("/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("0::")) return "/sys/fs/cgroup" + line.substr(3);
  }
  return "/sys/fs/cgroup";
}

}  // namespace

ProcessState process_state(pid_t process) {
  std::ifstream file(fmt::format("/proc/{}/stat", process));
  std::string line;
  if (!std::getline(file, line)) return ProcessState::kGone;
  // The name in parentheses may hold anything; the state follows the last one.
  const size_t end = line.rfind(") ");
  const char state = end == std::string::npos ? '?' : line[end + 2];
  if (state == 'Z' || state == 'X') return ProcessState::kGone;
  return state == 'T' || state == 't' ? ProcessState::kStopped : ProcessState::kRunning;
}

int64_t processes_killed_for_memory() {
  std::ifstream file(control_group() + "/memory.events");
  std::string name;
  for (int64_t count = 0; file >> name >> count;) {
    if (name == "oom_kill") return count;
  }
  return 0;
}

}  // namespace sprocket::launcher
