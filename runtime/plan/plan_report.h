// What `sprocket plan` prints and writes.
#pragma once

#include <string>
#include <vector>

#include "runtime/plan/candidates.h"
#include "runtime/plan/coverage_model.h"

namespace sprocket::runtime {

struct ReportOptions {
  int top = 12;             // legal candidates that are listed
  bool all = false;         // list all of them, and the illegal ones with their reasons
  config::Parallel of_job;  // marked where it is listed
};

// The table, the recommendation and, with `all`, the illegal candidates.
std::string candidates_text(const std::vector<Candidate>& candidates, const ClusterModel& cluster,
                            const ReportOptions& options);

// One sentence: what is fastest and fits, and why.
std::string recommendation(const std::vector<Candidate>& candidates, const ClusterModel& cluster);

// One line for every candidate, figures in bytes and seconds.
std::string candidates_csv(const std::vector<Candidate>& candidates);

// coverage_by_order as a table; `budgets` are those it was made with.
std::string coverage_text(const std::vector<OrderCoverage>& orders,
                          const std::vector<double>& budgets);

}  // namespace sprocket::runtime
