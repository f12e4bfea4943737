// Latency and bandwidth from rank to rank.
#pragma once

#include <cstdint>
#include <vector>

#include "launcher/doctor/finding.h"
#include "launcher/doctor/rank_report.h"
#include "parallel/comm/communicator.h"

namespace sprocket::launcher {

struct RankPair {
  int first = 0;
  int second = 0;
  bool operator==(const RankPair&) const = default;
};

// All pairs of up to 8 ranks; of more every rank with the next one and with the one half the world
// further, which are of one host and of two wherever ranks fill hosts in order.
std::vector<RankPair> plan_pairs(int ranks);

struct PairTime {
  RankPair pair;
  double latency = 0;  // seconds of one way of 8 bytes
  double rate = 0;     // bytes/s of one way of a few MiB
};

// Bytes of the messages that show the bandwidth.
inline constexpr int64_t kLargeMessage = int64_t{4} << 20;

// Medians of messages to and fro, one pair after the other while the others wait; on rank 0, empty
// elsewhere. Collective.
std::vector<PairTime> measure_pairs(comm::Communicator& world, const std::vector<RankPair>& pairs);

// Bytes/s at which this thread copies kLargeMessage in memory; a median.
double measure_copy_rate();

// Pairs of one host are held against its copies in memory, pairs of two against the slower one's
// fastest network adapter, and all against the median of their kind. Where ranks share processors
// (`crowded`, by rank) times are said but not judged.
std::vector<Finding> judge_pairs(const std::vector<PairTime>& times,
                                 const std::vector<RankReport>& reports,
                                 const std::vector<bool>& crowded);

}  // namespace sprocket::launcher
