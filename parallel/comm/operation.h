// What a backend hands back for a started operation.
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <stdexcept>
#include <string>

#include "base/stream.h"
#include "parallel/comm/recorder.h"

namespace sprocket::comm {

// What a backend throws; the front adds communicator, operation and sequence number and turns it
// into CommError. `peer` is a rank of the group, -1 for none in particular.
class BackendError : public std::runtime_error {
 public:
  explicit BackendError(const std::string& what, int peer = -1)
      : std::runtime_error(what), peer_(peer) {}
  int peer() const { return peer_; }

 private:
  int peer_;
};

// Used by one thread only. Destroying an unfinished operation withdraws it: when the destructor
// returns, the backend touches the operation's buffers no more.
class Operation {
 public:
  using Clock = std::chrono::steady_clock;

  // Who is being waited for, in words and, when it is one rank, in numbers.
  struct Missing {
    std::string what;
    int peer = -1;
  };

  virtual ~Operation() = default;
  // Makes what progress is possible without blocking; true once complete. Throws BackendError when
  // the operation or its group has failed. Not called again after true or a throw.
  virtual bool poll() = 0;
  // Returns when polling may help again, at the latest at `until`; may return early.
  virtual void pause(Clock::time_point until) = 0;
  virtual Missing missing() const = 0;
  // Orders a device stream after the operation; false when only the host can wait for it.
  virtual bool order(StreamView) { return false; }
  // When it took place, where the backend knows better than whoever sees that it is complete; asked
  // once poll() has returned true.
  virtual std::optional<OperationSpan> span() const { return std::nullopt; }
  // Asked once poll() has returned true.
  virtual LastPeer last_peer() const { return {}; }
};

// Waits for an operation with the deadline, the errors and the records of the front.
using Waiter = std::function<void(Operation&)>;

}  // namespace sprocket::comm
