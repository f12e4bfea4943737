// What starts the ranks of a job: the command lines of mpirun and srun, and a script for sbatch.
#pragma once

#include <string>
#include <vector>

#include "launcher/launch/hosts.h"

namespace sprocket::launcher {

enum class Starter : uint8_t { kMpirun, kSrun };

struct StartPlan {
  Starter starter = Starter::kMpirun;
  int ranks = 1;
  std::vector<HostSlots> hosts;       // empty: this one, or Slurm's; those in front are used first
  std::string agent;                  // reaches other hosts, as ssh does; empty: mpirun knows how
  int processors = 1;                 // of this host, that its ranks may use
  bool crowded = false;               // a host has fewer of them than it takes ranks
  std::string binding = "none";       // what mpirun binds a rank to
  std::vector<std::string> exported;  // variables that ranks on other hosts get as well
  std::string folder;                 // the working folder
  std::string program;                // sprocket's path, the same on all hosts
};

// More ranks than processors on some host, as far as that is known.
bool is_oversubscribed(const StartPlan& plan);

// Throws ConfigError when the hosts cannot take the ranks, or when mpirun would misread the agent.
void check_start_plan(const StartPlan& plan);

// `job` is what stands behind the program: "train", "--config", …
std::vector<std::string> start_command(const StartPlan& plan, const std::vector<std::string>& job);

// `words` as one line for a shell.
std::string shell_line(const std::vector<std::string>& words);

// `launch` is the whole command that the script is to run.
std::string sbatch_script(const StartPlan& plan, const std::string& name,
                          const std::vector<std::string>& launch);

// The words of `job` with `--resume` set to `value`, whatever was there before.
std::vector<std::string> with_resume(std::vector<std::string> job, const std::string& value);
// What --resume is in them; `otherwise` when it is not there.
std::string resume_of(const std::vector<std::string>& job, const std::string& otherwise);
// The words of `job` with the file by which ranks find their supervisor.
std::vector<std::string> with_contact(std::vector<std::string> job, const std::string& path);

}  // namespace sprocket::launcher
