// `sprocket doctor --np N`: starting the ranks, and what each of them does.
#pragma once

#include <string>
#include <vector>

#include "base/exit_code.h"
#include "launcher/launch/hosts.h"

namespace sprocket::launcher {

struct ExamineOptions {
  int ranks = 1;
  std::vector<HostSlots> hosts;  // empty: this one, or Slurm's
  std::string agent;             // reaches other hosts, as ssh does
};

// Becomes mpirun, or srun, which starts `sprocket doctor` on all ranks. Returns only where it
// cannot be had, which it says. Throws ConfigError when the hosts cannot take the ranks.
ExitCode start_examination(const ExamineOptions& options);

// This process as one of the ranks; rank 0 prints what all have found. `expected`: how many ranks
// were asked for, 0: any.
ExitCode examine_as_rank(int expected);

}  // namespace sprocket::launcher
