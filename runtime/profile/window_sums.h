// All ranks over the steps of a window: what a report is made of.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "runtime/profile/operation_sums.h"
#include "runtime/profile/rank_sums.h"
#include "runtime/profile/report.h"

namespace sprocket::profile {

struct WindowSums {
  std::vector<RankSums> ranks;  // that are there
  OperationTable operations;
  // By recorded step; means over the ranks.
  std::vector<double> seconds;
  EachStep each;
  std::vector<double> unrecorded_seconds;
  double dense_equivalent_flops = 0, executed_flops = 0;  // sums over the steps, of the job
  int64_t all_tokens = 0;                                 // of the job

  void add(std::span<const RankStep> step, std::span<const MatchedOperation> operations,
           const std::vector<std::string>& hosts);
  int64_t steps() const { return std::ssize(seconds); }
};

}  // namespace sprocket::profile
