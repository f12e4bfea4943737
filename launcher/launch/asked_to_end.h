// The signals by which a person or a scheduler asks the supervisor to end.
#pragma once

#include <chrono>

namespace sprocket::launcher {

// Counts SIGTERM, SIGINT and SIGUSR1 instead of letting them end the process; the default actions
// are restored when it is destroyed. One at a time, made by the main thread.
class AskedToEnd {
 public:
  AskedToEnd();
  ~AskedToEnd();
  AskedToEnd(const AskedToEnd&) = delete;
  AskedToEnd& operator=(const AskedToEnd&) = delete;

  int times() const;
  // Returns early when a signal comes, and at once when one has come.
  void pause(std::chrono::milliseconds length) const;
};

}  // namespace sprocket::launcher
