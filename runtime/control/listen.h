// A listening TCP socket.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>

#include <cstdint>
#include <string>

namespace sprocket::control {

// Listens on a numeric address; port 0 is any free one. Throws ConfigError, beginning with `who`,
// for another address and for one that cannot be listened on.
boost::asio::ip::tcp::acceptor listen_on(boost::asio::io_context& io, const std::string& address,
                                         uint16_t port, const std::string& who);

}  // namespace sprocket::control
