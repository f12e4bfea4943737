// The supervisor's end of the control connections.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "runtime/control/contact_file.h"
#include "runtime/control/control.pb.h"

namespace sprocket::control {

struct ServerOptions {
  int ranks = 1;
  std::string listen = "127.0.0.1";  // numeric address; "0.0.0.0": all of this host
  uint16_t port = 0;                 // 0: any that is free
  std::chrono::milliseconds heartbeat{1000};
  // Of a connection that has not proved to know the secret yet.
  std::chrono::milliseconds patience{10'000};
};

// What became known of a rank, or of somebody who is none.
struct Report {
  enum class Kind : uint8_t {
    kJoined,   // hello
    kMessage,  // heartbeat, error, finished or dump
    kLost,     // its connection ended: what
    kRefused,  // somebody was turned away: what; rank is -1
  };
  Kind kind = Kind::kMessage;
  int rank = -1;
  Message message;
  std::string what;
};

class Server {
 public:
  // Listens from now on, with a thread of its own. Throws ConfigError when the address or port
  // cannot be had.
  Server(const ServerOptions& options, const Secret& secret);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  uint16_t port() const;
  // What came in since, in order; waits for some for at most `patience`.
  std::vector<Report> take(std::chrono::milliseconds patience);
  // To every rank that is connected, now and, of STOP, later.
  void send(Command::Kind command);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace sprocket::control
