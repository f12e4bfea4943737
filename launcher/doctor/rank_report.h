// What one rank finds out about its place, and what all ranks' reports say together.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "launcher/doctor/finding.h"

namespace sprocket::launcher {

struct RankReport {
  int rank = 0;
  std::string host;
  std::string program;        // sprocket's version and build
  std::string mpi;            // its library's words about itself
  std::vector<int> cores;     // that it may run on
  int64_t shared_memory = 0;  // bytes free in /dev/shm
  double copy_rate = 0;       // bytes/s of a copy in memory, by one thread
  double link_rate = 0;       // bytes/s of the fastest network adapter that is up; 0: not known
  std::vector<Finding> findings;
};

// For the way from rank to rank. `report_of` throws InternalError for what is none.
std::string text_of(const RankReport& report);
RankReport report_of(const std::string& text);

// "rank 3 (node7)", "ranks 0-3, 6 (node7)", "ranks 0-3 (node7), 4-7 (node8)", of `reports` by their
// ranks; shortened when long.
std::string names_of(const std::vector<int>& ranks, const std::vector<RankReport>& reports);

// The findings of all ranks, in the order of rank 0's: one for each subject, verdict and remedy.
// What is not the same on all ranks says whom it is of.
std::vector<Finding> merge_findings(const std::vector<RankReport>& reports);

}  // namespace sprocket::launcher
