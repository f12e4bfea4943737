// Frames on a TCP connection, asynchronously: for client and server alone, by the thread that runs
// the socket's io_context.
#pragma once

#include <array>
#include <boost/asio/ip/tcp.hpp>
#include <deque>
#include <functional>
#include <memory>
#include <string>

#include "runtime/control/control.pb.h"
#include "runtime/control/message_reader.h"

namespace sprocket::control {

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  using Received = std::function<void(const Message&)>;  // may throw InputError: then it is closed
  using Closed = std::function<void(const std::string& why)>;

  explicit Connection(boost::asio::ip::tcp::socket socket);

  // Whom to call from now on. `closed` is called once, unless close() came first.
  void set_handlers(Received received, Closed closed);
  // Reads until closed. Once, after set_handlers().
  void start() { read(); }
  // `sent` is called when the system has taken all of it; not if the connection ends before.
  void send(const Message& message, std::function<void()> sent = nullptr);
  bool idle() const { return outgoing_.empty(); }
  void set_limit(size_t limit) { reader_.set_limit(limit); }
  // Sends what waits, then closes; nothing is called any more.
  void close_after_sending();
  void close();

 private:
  void read();
  void write();
  void fail(const std::string& why);

  boost::asio::ip::tcp::socket socket_;
  MessageReader reader_{kGreetingLimit};
  std::array<char, 8192> incoming_;
  struct Outgoing {
    std::string bytes;
    std::function<void()> sent;
  };
  std::deque<Outgoing> outgoing_;
  Received received_;
  Closed closed_;
  bool closing_ = false;
};

}  // namespace sprocket::control
