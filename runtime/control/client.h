// A rank's end of its control connection.
//
// It has a thread of its own and never delays the job: a supervisor that is gone, or never was
// there, changes nothing but what it hears. A connection that ends is made anew.
#pragma once

#include <chrono>
#include <functional>
#include <memory>

#include "base/exit_code.h"
#include "runtime/control/contact_file.h"
#include "runtime/control/pulse.h"

namespace sprocket::control {

// This process on this host, as rank `rank` of `ranks`.
Hello hello_of(int rank, int ranks);

struct ClientOptions {
  int rank = 0;
  int ranks = 1;
  // Between attempts to connect; doubled each time, up to `longest_pause`.
  std::chrono::milliseconds first_pause{100};
  std::chrono::milliseconds longest_pause{5000};
};

class Client {
 public:
  // Starts to connect. `pulse` outlives the client.
  Client(const ClientOptions& options, Contact contact, const Pulse& pulse);
  // Closes the connection, without waiting for anything.
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  // Calls `stop`, by the client's thread, when the supervisor asks for the job's end; at once if it
  // has already. Null: nobody listens any more, when this returns.
  void on_stop(std::function<void()> stop);
  // Both return when it has been sent, or after `patience`.
  void report_error(const ErrorReport& error, std::chrono::milliseconds patience);
  void report_end(ExitCode code, std::chrono::milliseconds patience);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace sprocket::control
