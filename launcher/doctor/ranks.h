// The ranks of `sprocket doctor --np N` together.
#pragma once

#include <vector>

#include "launcher/doctor/finding.h"
#include "launcher/doctor/rank_report.h"

namespace sprocket::launcher {

// How many there are, and on which hosts.
Finding describe_ranks(const std::vector<RankReport>& reports);

// Ranks of other builds, or of another MPI, do not understand each other.
Finding judge_versions(const std::vector<RankReport>& reports);

// Whether a rank's host has more ranks than processors for them, by rank.
std::vector<bool> find_crowded(const std::vector<RankReport>& reports);
Finding judge_cores_per_rank(const std::vector<RankReport>& reports);

// Room in /dev/shm for all ranks of each host, whose segments are counted as free no longer.
Finding judge_shared_memory_of_ranks(const std::vector<RankReport>& reports);

}  // namespace sprocket::launcher
