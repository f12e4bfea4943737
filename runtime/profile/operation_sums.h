// The operations of a job over the steps of a window, added up by what they are; and what ranks
// waited for in them.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "runtime/profile/operation_matching.h"
#include "runtime/profile/rank_sums.h"
#include "runtime/profile/report.h"

namespace sprocket::profile {

struct OperationKey {
  std::string group;  // name
  comm::OpKind op = comm::OpKind::kBarrier;
  Phase phase = Phase::kOther;
  auto operator<=>(const OperationKey&) const = default;
};

// Over all ranks and steps.
struct OperationSums {
  int64_t calls = 0;  // of ranks
  int64_t sent_bytes = 0, messages = 0;
  int64_t matched_calls = 0;
  int64_t transfer_ns = 0, wait_ns = 0;  // of matched ones
  double bus_bytes = 0;                  // volume x factor, of matched ones
};

class OperationTable {
 public:
  // By index of the step's ranks: when they computed, and rank_sums, where what ranks waited for
  // goes.
  void add(std::span<const RankStep> ranks, std::span<const IntervalSet> compute,
           std::span<const MatchedOperation> operations, std::span<RankSums> rank_sums);

  const std::map<OperationKey, OperationSums>& sums() const { return sums_; }
  // The longest ones, the longest first.
  const std::vector<SlowOperation>& slowest() const { return slowest_; }

  static constexpr size_t kSlowest = 20;

 private:
  void keep_if_slow(const MatchedOperation& operation, int64_t step);

  std::map<OperationKey, OperationSums> sums_;
  std::vector<SlowOperation> slowest_;
};

}  // namespace sprocket::profile
