// What `sprocket check-parity` says, to people and to programs.
#pragma once

#include <string>

#include "configs/job.pb.h"
#include "runtime/parity/parity_comparison.h"

namespace sprocket::runtime {

inline constexpr int kParityReportSchema = 1;

// What was compared.
struct ParitySubject {
  std::string job;  // its file
  config::Job resolved;
  std::string samples;  // ParitySamples::source
  int64_t attention_step = 0;
  double density = 1;
};

// A verdict in one line, what was compared, and the worst tensors (all that are off, at most 50).
std::string parity_text(const ParitySubject& subject, const ParityComparison& comparison);

// All tensors, worst first.
std::string parity_json(const ParitySubject& subject, const ParityComparison& comparison);

}  // namespace sprocket::runtime
