// One end of a control connection without any of the project's manners.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <optional>
#include <string>

#include "runtime/control/control.pb.h"

namespace sprocket::control {

class RawPeer {
 public:
  // Connects to a port of this host.
  explicit RawPeer(uint16_t port);
  explicit RawPeer(boost::asio::ip::tcp::socket socket) : socket_(std::move(socket)) {}

  void send_bytes(const std::string& bytes);
  void send(const Message& message);
  // The next message, or nothing once the other end has closed.
  std::optional<Message> receive();

 private:
  static boost::asio::io_context& io();
  boost::asio::ip::tcp::socket socket_;
};

// Takes connections as a supervisor would.
class RawListener {
 public:
  RawListener();
  uint16_t port() const;
  RawPeer accept();

 private:
  boost::asio::io_context io_;
  boost::asio::ip::tcp::acceptor acceptor_;
};

}  // namespace sprocket::control
