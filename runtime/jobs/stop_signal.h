// SIGTERM, SIGINT and SIGUSR1 as a flag that jobs look at between steps.
#pragma once

#include <atomic>

namespace sprocket::runtime {

// Installs handlers for the three signals; the default actions are restored when it is destroyed.
// One at a time in a process, made by its main thread. A second signal of the same kind has its
// default effect at once. (mpirun passes SIGUSR1 on to all ranks; SIGTERM to mpirun makes it kill
// the ranks a short time after having passed it on.)
class StopSignal {
 public:
  StopSignal();
  ~StopSignal();
  StopSignal(const StopSignal&) = delete;
  StopSignal& operator=(const StopSignal&) = delete;

  // As if a signal had come; from any thread.
  void request() const;
  // For TrainOptions::stop. Static storage.
  const std::atomic<bool>* flag() const;
};

}  // namespace sprocket::runtime
