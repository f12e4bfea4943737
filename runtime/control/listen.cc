#include "runtime/control/listen.h"

#include <fmt/format.h>

#include "base/error.h"

namespace sprocket::control {

namespace asio = boost::asio;
using asio::ip::tcp;

tcp::acceptor listen_on(asio::io_context& io, const std::string& address, uint16_t port,
                        const std::string& who) {
  boost::system::error_code error;
  const auto numeric = asio::ip::make_address(address, error);
  if (error) {
    throw ConfigError(
        fmt::format("{}: expected a numeric address to listen on, found \"{}\"", who, address));
  }
  const tcp::endpoint endpoint(numeric, port);
  tcp::acceptor acceptor(io);
  acceptor.open(endpoint.protocol(), error);
  // A port whose last connections are only waiting for late packets is free.
  if (!error) acceptor.set_option(tcp::acceptor::reuse_address(true), error);
  if (!error) acceptor.bind(endpoint, error);
  if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
  if (error) {
    throw ConfigError(
        fmt::format("{}: cannot listen on {} port {}: {}", who, address, port, error.message()));
  }
  return acceptor;
}

}  // namespace sprocket::control
