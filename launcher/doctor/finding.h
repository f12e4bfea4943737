// What `sprocket doctor` finds out about a machine, one line each.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace sprocket::launcher {

enum class Verdict {
  kGood,
  kAdvice,   // runs, but worse than it could
  kProblem,  // prevents a job from running
};

struct Finding {
  Verdict verdict = Verdict::kGood;
  std::string subject;  // "shared memory"
  std::string found;    // "/dev/shm: 64 MiB free of 64 MiB"
  std::string remedy;   // what to do about it; empty when good
};

// A table, one finding a line, remedies below their finding; ends with a sentence of what it means.
std::string format_findings(const std::vector<Finding>& findings);

bool any_problem(const std::vector<Finding>& findings);

}  // namespace sprocket::launcher
