#include "runtime/control/server.h"

#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <condition_variable>
#include <map>
#include <mutex>
#include <set>
#include <thread>

#include "base/error.h"
#include "runtime/control/connection.h"
#include "runtime/control/handshake.h"
#include "runtime/control/listen.h"

namespace sprocket::control {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

// Connections that have proved nothing, beyond one for each rank; more are closed at once.
constexpr size_t kSpareStrangers = 32;

// A connection that has not proved to know the secret.
struct Stranger {
  Stranger(tcp::socket socket, asio::io_context& io, const Secret& secret, int ranks)
      : connection(std::make_shared<Connection>(std::move(socket))),
        handshake(secret, ranks),
        deadline(io) {}
  std::shared_ptr<Connection> connection;
  SupervisorHandshake handshake;
  asio::steady_timer deadline;
};

Message command_message(Command::Kind kind) {
  Message message;
  message.mutable_command()->set_kind(kind);
  return message;
}

}  // namespace

class Server::Impl {
 public:
  Impl(const ServerOptions& options, const Secret& secret)
      : options_(options),
        secret_(secret),
        acceptor_(listen_on(io_, options.listen, options.port, "control connection")) {
    port_ = acceptor_.local_endpoint().port();
    accept();
    thread_ = std::thread([this] { io_.run(); });
  }

  ~Impl() {
    asio::post(io_, [this] {
      error_code ignored;
      acceptor_.close(ignored);
      for (const auto& stranger : strangers_) turn_away(*stranger);
      for (const auto& [rank, connection] : ranks_) connection->close();
      strangers_.clear();
      ranks_.clear();
    });
    thread_.join();
  }

  uint16_t port() const { return port_; }

  std::vector<Report> take(std::chrono::milliseconds patience) {
    std::unique_lock lock(mutex_);
    arrived_.wait_for(lock, patience, [this] { return !reports_.empty(); });
    return std::exchange(reports_, {});
  }

  void send(Command::Kind kind) {
    asio::post(io_, [this, kind] {
      if (kind == Command::STOP) stopping_ = true;
      for (const auto& [rank, connection] : ranks_) connection->send(command_message(kind));
    });
  }

 private:
  void report(Report report) {
    {
      const std::lock_guard lock(mutex_);
      reports_.push_back(std::move(report));
    }
    arrived_.notify_one();
  }

  void accept() {
    acceptor_.async_accept([this](const error_code& error, tcp::socket socket) {
      if (!acceptor_.is_open()) return;
      if (!error && strangers_.size() < options_.ranks + kSpareStrangers) greet(std::move(socket));
      accept();
    });
  }

  void greet(tcp::socket socket) {
    const auto stranger =
        std::make_shared<Stranger>(std::move(socket), io_, secret_, options_.ranks);
    strangers_.insert(stranger);
    stranger->deadline.expires_after(options_.patience);
    stranger->deadline.async_wait([this, stranger](const error_code& error) {
      if (!error) forget(stranger, "said nothing that proves who it is, in time");
    });
    stranger->connection->set_handlers(
        [this, stranger](const Message& message) { greeting(stranger, message); },
        [this, stranger](const std::string& why) { forget(stranger, why); });
    stranger->connection->start();
  }

  static void turn_away(Stranger& stranger) {
    stranger.deadline.cancel();
    stranger.connection->close();
  }

  void forget(const std::shared_ptr<Stranger>& stranger, const std::string& why) {
    if (strangers_.erase(stranger) == 0) return;
    turn_away(*stranger);
    report({Report::Kind::kRefused, -1, {}, why});
  }

  void greeting(const std::shared_ptr<Stranger>& stranger, const Message& message) {
    Message answer;
    try {
      answer = stranger->handshake.answer(message);
    } catch (const InputError& refusal) {
      answer.mutable_refusal()->set_reason(refusal.what());
      stranger->connection->send(answer);
      stranger->connection->close_after_sending();
      stranger->deadline.cancel();
      if (strangers_.erase(stranger) > 0) report({Report::Kind::kRefused, -1, {}, refusal.what()});
      return;
    }
    if (answer.has_welcome()) {
      answer.mutable_welcome()->set_heartbeat_ms(static_cast<uint32_t>(options_.heartbeat.count()));
    }
    stranger->connection->send(answer);
    if (answer.has_welcome()) admit(stranger);
  }

  void admit(const std::shared_ptr<Stranger>& stranger) {
    stranger->deadline.cancel();
    strangers_.erase(stranger);
    const int rank = stranger->handshake.hello().rank();
    const std::shared_ptr<Connection> connection = stranger->connection;
    const auto former = ranks_.find(rank);
    if (former != ranks_.end()) former->second->close();
    ranks_[rank] = connection;
    connection->set_limit(kMessageLimit);
    Report joined{Report::Kind::kJoined, rank, {}, ""};
    *joined.message.mutable_hello() = stranger->handshake.hello();
    report(std::move(joined));
    connection->set_handlers(
        [this, rank](const Message& message) {
          report({Report::Kind::kMessage, rank, message, ""});
        },
        [this, rank](const std::string& why) {
          ranks_.erase(rank);
          report({Report::Kind::kLost, rank, {}, why});
        });
    if (stopping_) connection->send(command_message(Command::STOP));
  }

  const ServerOptions options_;
  const Secret secret_;
  asio::io_context io_;
  tcp::acceptor acceptor_;
  uint16_t port_ = 0;
  std::set<std::shared_ptr<Stranger>> strangers_;
  std::map<int, std::shared_ptr<Connection>> ranks_;
  bool stopping_ = false;

  std::mutex mutex_;
  std::condition_variable arrived_;
  std::vector<Report> reports_;
  std::thread thread_;
};

Server::Server(const ServerOptions& options, const Secret& secret)
    : impl_(std::make_unique<Impl>(options, secret)) {}
Server::~Server() = default;
uint16_t Server::port() const { return impl_->port(); }
std::vector<Report> Server::take(std::chrono::milliseconds patience) {
  return impl_->take(patience);
}
void Server::send(Command::Kind command) { impl_->send(command); }

}  // namespace sprocket::control
