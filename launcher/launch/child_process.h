// A child with a process group of its own, that does not outlive whoever started it.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

namespace sprocket::launcher {

class ChildProcess {
 public:
  // Its first word is looked up in PATH; it reads nothing and writes where this process does.
  // `death_signal` is sent to it when the calling thread ends, however that comes; 0: nothing is.
  // Throws ConfigError when it cannot be started.
  ChildProcess(const std::vector<std::string>& words, int death_signal);
  // Kills the group, if it still runs.
  ~ChildProcess();
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  // As a shell has it: the exit code, or 128 + the signal; nothing while it runs. Does not block.
  std::optional<int> ended();
  // To the process alone.
  void signal(int number) const;
  // To the process and what it started in its group.
  void kill_group() const;

 private:
  pid_t id_ = -1;
  std::optional<int> status_;
};

}  // namespace sprocket::launcher
