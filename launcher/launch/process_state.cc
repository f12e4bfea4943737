#include "launcher/launch/process_state.h"

#include <fstream>
#include <optional>
#include <string>

#include <fmt/format.h>

namespace sprocket::launcher {
namespace {

// What is behind the colon that ends the list of controllers, if `name` is among them:
// "4:cpu,memory:/a" is of memory, "0::/a" of version 2, which has no name.
std::optional<std::string> group_of(const std::string& line, const std::string& name) {
  const size_t begin = line.find(':'), end = line.find(':', begin + 1);
  if (end == std::string::npos) return std::nullopt;
  const std::string controllers = "," + line.substr(begin + 1, end - begin - 1) + ",";
  if (controllers.find("," + name + ",") == std::string::npos) return std::nullopt;
  return line.substr(end + 1);
}

// Where the kernel counts what it does to this process's control group for memory: in version 1,
// where memory is there, or in version 2.
std::string memory_events() {
  std::ifstream file("/proc/self/cgroup");
  std::string events = "/sys/fs/cgroup/memory.events";
  for (std::string line; std::getline(file, line);) {
    if (const auto group = group_of(line, "memory")) {
      return "/sys/fs/cgroup/memory" + *group + "/memory.oom_control";
    }
    if (const auto group = group_of(line, "")) {
      events = "/sys/fs/cgroup" + *group + "/memory.events";
    }
  }
  return events;
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
  std::ifstream file(memory_events());
  std::string name;
  for (int64_t count = 0; file >> name >> count;) {
    if (name == "oom_kill") return count;
  }
  return 0;
}

}  // namespace sprocket::launcher
