#include "runtime/control/connection.h"

#include <boost/asio/buffer.hpp>
#include <boost/asio/write.hpp>
#include <utility>

#include "base/error.h"

namespace sprocket::control {

namespace asio = boost::asio;
using boost::system::error_code;

Connection::Connection(asio::ip::tcp::socket socket) : socket_(std::move(socket)) {
  error_code ignored;
  socket_.set_option(asio::ip::tcp::no_delay(true), ignored);
}

void Connection::set_handlers(Received received, Closed closed) {
  received_ = std::move(received);
  closed_ = std::move(closed);
}

void Connection::send(const Message& message, std::function<void()> sent) {
  if (!socket_.is_open() || closing_) return;
  outgoing_.push_back({frame(message.SerializeAsString()), std::move(sent)});
  if (outgoing_.size() == 1) write();
}

void Connection::close_after_sending() {
  received_ = nullptr;
  closed_ = nullptr;
  closing_ = true;
  if (outgoing_.empty()) close();
}

void Connection::close() {
  received_ = nullptr;
  closed_ = nullptr;
  error_code ignored;
  socket_.shutdown(asio::ip::tcp::socket::shutdown_both, ignored);
  socket_.close(ignored);
}

void Connection::fail(const std::string& why) {
  const Closed closed = std::move(closed_);
  close();
  if (closed) closed(why);
}

void Connection::read() {
  socket_.async_read_some(asio::buffer(incoming_),
                          [self = shared_from_this()](const error_code& error, size_t count) {
                            if (error) return self->fail(error.message());
                            if (!self->received_) return;
                            self->reader_.append({self->incoming_.data(), count});
                            try {
                              // What is received may close the connection, and take the function
                              // away under itself.
                              while (const Received received = self->received_) {
                                const std::optional<Message> message = self->reader_.next();
                                if (!message) break;
                                received(*message);
                              }
                            } catch (const InputError& refusal) {
                              return self->fail(refusal.what());
                            }
                            if (self->received_) self->read();
                          });
}

void Connection::write() {
  asio::async_write(socket_, asio::buffer(outgoing_.front().bytes),
                    [self = shared_from_this()](const error_code& error, size_t) {
                      if (error) {
                        self->outgoing_.clear();
                        return self->fail(error.message());
                      }
                      const auto sent = std::move(self->outgoing_.front().sent);
                      self->outgoing_.pop_front();
                      if (sent) sent();
                      if (!self->outgoing_.empty()) return self->write();
                      if (self->closing_) self->close();
                    });
}

}  // namespace sprocket::control
