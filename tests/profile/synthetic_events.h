// Recorder files of steps that are known: every rank computes, copies, loads and communicates for
// times that are given, on a clock of its own.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/profile/event_file.h"

namespace sprocket::profile::testing {

// Of one rank and step, nanoseconds. The step:
//   load | compute layer 0 | exchange 0 | copy | compute layer 1 | exchange 1 | compute |
//   all_reduce
// An exchange begins `overlap` before the compute before it ends, and ends when the last member has
// been in it for `transfer`; the rank goes on then.
struct SyntheticRank {
  int64_t clock = 0;  // what its clock shows when the job's begins
  int64_t load = 0;
  int64_t compute[2] = {0, 0};
  int64_t copy = 0;
  int64_t tail = 0;  // compute before the all_reduce
};

struct SyntheticStep {
  std::vector<SyntheticRank> ranks;
  int64_t overlap = 0;
  int64_t transfer = 0;
};

inline constexpr int64_t kExchangeBytes = 1000, kSumBytes = 400;

events::Header synthetic_header(int rank, int world, int64_t steps);

// What the ranks record of the step that begins for all of them at `begin` of the job's clock; the
// time at which it has ended.
int64_t make_step(const SyntheticStep& plan, int64_t number, int64_t begin, int64_t& sequence,
                  std::vector<RecordedStep>& ranks, std::vector<NameTable>& names);

// Files of `steps` equal steps in `folder`, which is there.
void write_synthetic(const std::string& folder, const SyntheticStep& plan, int64_t steps);

}  // namespace sprocket::profile::testing
