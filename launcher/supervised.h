// A rank that `sprocket launch` started: its connection to the supervisor, and what it says there.
#pragma once

#include <exception>
#include <memory>
#include <string>

#include "base/exit_code.h"
#include "runtime/control/client.h"
#include "runtime/control/pulse.h"
#include "runtime/jobs/stop_signal.h"

namespace sprocket::launcher {

class Supervised {
 public:
  // By the contact file that the supervisor wrote; before MPI is started, so that a rank that hangs
  // there is seen. From now on the process does not outlive mpirun. Throws InputError.
  // `pulse` is what it says, and outlives it.
  Supervised(const std::string& contact, control::Pulse& pulse);

  control::Client& client() { return client_; }

  // `error` ends the job on this rank; it does so alone, or with all others.
  void report(const std::exception& error);
  void report_end(ExitCode code);

 private:
  control::Pulse& pulse_;
  control::Client client_;
};

// Signals to this process and the supervisor's STOP as one flag. `supervised` may be null, and
// outlives it.
class JobStop {
 public:
  explicit JobStop(Supervised* supervised);
  ~JobStop();
  JobStop(const JobStop&) = delete;
  JobStop& operator=(const JobStop&) = delete;

  const std::atomic<bool>* flag() const { return signal_.flag(); }

 private:
  const runtime::StopSignal signal_;
  Supervised* supervised_;
};

// Whether a message is one of an allocation that failed, of the host's or of a device's memory.
bool is_out_of_memory(const std::exception& error);

}  // namespace sprocket::launcher
