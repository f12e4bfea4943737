#include "tests/control/raw_peer.h"

#include <boost/asio/buffer.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>

#include "runtime/control/framing.h"

namespace sprocket::control {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

asio::io_context& RawPeer::io() {
  static asio::io_context context;
  return context;
}

RawPeer::RawPeer(uint16_t port) : socket_(io()) {
  socket_.connect({asio::ip::address_v4::loopback(), port});
}

void RawPeer::send_bytes(const std::string& bytes) {
  error_code closed;
  asio::write(socket_, asio::buffer(bytes), closed);
}

void RawPeer::send(const Message& message) { send_bytes(frame(message.SerializeAsString())); }

std::optional<Message> RawPeer::receive() {
  FrameReader reader(kMessageLimit);
  for (;;) {
    char byte = 0;
    error_code closed;
    asio::read(socket_, asio::buffer(&byte, 1), closed);
    if (closed) return std::nullopt;
    reader.append({&byte, 1});
    if (const auto bytes = reader.next()) {
      Message message;
      message.ParseFromString(*bytes);
      return message;
    }
  }
}

RawListener::RawListener() : acceptor_(io_, {asio::ip::address_v4::loopback(), 0}) {}

uint16_t RawListener::port() const { return acceptor_.local_endpoint().port(); }

RawPeer RawListener::accept() { return RawPeer(acceptor_.accept()); }

}  // namespace sprocket::control
