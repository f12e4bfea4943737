// Clocks: of the ranks against each other, and each host's against itself.
#pragma once

#include <cstdint>
#include <vector>

#include "launcher/doctor/finding.h"
#include "launcher/doctor/rank_report.h"
#include "parallel/comm/communicator.h"

namespace sprocket::launcher {

// Of a rank's wall clock, seconds ahead of rank 0's; the truth is within `error` of it.
struct ClockOffset {
  int rank = 0;
  double seconds = 0;
  double error = 0;
};

// The offset that a question asked at `sent`, answered with the other clock's time, and heard at
// `heard` shows (nanoseconds of the two wall clocks): the answer was made in between.
ClockOffset offset_of(int rank, int64_t sent, int64_t answer, int64_t heard);

// The offset of every rank but 0, on rank 0; of several questions the one with the least error
// counts. Collective.
std::vector<ClockOffset> measure_clock_offsets(comm::Communicator& world);

Finding judge_clock_offsets(const std::vector<ClockOffset>& offsets,
                            const std::vector<RankReport>& reports);

// What three clocks of one host say of the same stretch of time, in seconds.
struct ClockRun {
  double steady = 0;  // what time-outs and profiles count with
  double raw = 0;     // the same oscillator, never adjusted
  double wall = 0;
  bool backwards = false;  // the steady clock went back
};

// The clocks, now and later.
class ClockWatch {
 public:
  ClockWatch();
  ClockRun elapsed();

 private:
  int64_t steady_, raw_, wall_;
};

Finding judge_clock_run(const ClockRun& run);

enum class Synchronisation { kYes, kNo, kUnknown };
Synchronisation clock_synchronisation();
Finding judge_synchronisation(Synchronisation state);

}  // namespace sprocket::launcher
