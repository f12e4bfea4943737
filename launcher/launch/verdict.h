// How an attempt to run a job has ended, and whether another one makes sense.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/exit_code.h"
#include "launcher/launch/job_watch.h"

namespace sprocket::launcher {

enum class Ending : uint8_t {
  kDone,
  kInterrupted,    // asked to stop; a checkpoint was saved
  kAborted,        // asked to stop at once
  kNotStarted,     // no rank came to life
  kConfiguration,  // an error of the job file or the command line
  kData,           // of a file that is read
  kOutput,         // of a file that is written
  kNumbers,        // a loss that is no number, a comparison that failed
  kCrash,
  kOutOfMemory,
  kHang,
  kNodeLoss,  // another host, or the link to it
};
const char* name_of(Ending ending);

// What is known when the starter (mpirun, srun) has ended.
struct AttemptFacts {
  int status = 0;                           // its exit code; 128 + signal
  bool stop_asked = false;                  // by a signal to the supervisor
  bool abort_asked = false;                 // by a second one
  bool started_before = false;              // a rank came to life in an earlier attempt
  std::string hang;                         // the sentence, if it was ended for that
  int64_t processes_killed_for_memory = 0;  // of this host's control group, during the attempt
  std::string own_host;
};

struct Verdict {
  Ending ending = Ending::kDone;
  std::string sentence;           // empty for kDone
  ExitCode code = ExitCode::kOk;  // of `sprocket launch`, if there is no other attempt
  bool retry = false;
  // Where the cause lies, as far as it is known; as their ranks or --hosts name them.
  std::vector<std::string> hosts;
};

Verdict judge(const AttemptFacts& facts, const JobWatch& watch);

}  // namespace sprocket::launcher
