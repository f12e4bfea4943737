#include "runtime/control/client.h"

#include <netinet/tcp.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <condition_variable>
#include <deque>
#include <fstream>
#include <mutex>
#include <thread>

#include "base/error.h"
#include "base/host_name.h"
#include "base/log.h"
#include "runtime/control/connection.h"
#include "runtime/control/handshake.h"

namespace sprocket::control {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;
using std::chrono::milliseconds;

// One of several addresses may swallow what is sent there: a network that only the other host has.
constexpr milliseconds kForConnecting{3000};
// Until a connection over which nothing arrives any more is given up; by default a quarter of an
// hour.
constexpr unsigned kUnacknowledgedMs = 10'000;

int64_t resident_bytes() {
  std::ifstream file("/proc/self/statm");
  int64_t total = 0, resident = 0;
  file >> total >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

std::vector<tcp::endpoint> endpoints_of(const std::vector<Address>& addresses) {
  std::vector<tcp::endpoint> endpoints;
  for (const Address& address : addresses) {
    error_code error;
    const auto host = asio::ip::make_address(address.host, error);
    if (error) {
      throw InputError(fmt::format("control connection: expected a numeric address, found \"{}\"",
                                   address.host));
    }
    endpoints.emplace_back(host, address.port);
  }
  return endpoints;
}

}  // namespace

Hello hello_of(int rank, int ranks) {
  Hello hello;
  hello.set_rank(rank);
  hello.set_ranks(ranks);
  hello.set_process(getpid());
  hello.set_host(own_host_name());
  return hello;
}

class Client::Impl {
 public:
  Impl(const ClientOptions& options, Contact contact, const Pulse& pulse)
      : options_(options),
        secret_(contact.secret),
        endpoints_(endpoints_of(contact.addresses)),
        pulse_(pulse),
        socket_(io_),
        timer_(io_),
        pause_(options.first_pause) {
    connect();
    thread_ = std::thread([this] { io_.run(); });
    // As top and ps show it; bench/heartbeat_cost.py reads what it costs.
    pthread_setname_np(thread_.native_handle(), "control");
  }

  ~Impl() {
    asio::post(io_, [this] {
      leaving_ = true;
      error_code ignored;
      socket_.close(ignored);
      timer_.cancel();
      if (connection_) connection_->close();
      connection_.reset();
    });
    thread_.join();
  }

  void on_stop(std::function<void()> stop) {
    const std::lock_guard lock(mutex_);
    stop_ = std::move(stop);
    if (stop_requested_ && stop_) stop_();
  }

  void report(const Message& message, milliseconds patience) {
    std::unique_lock lock(mutex_);
    ++unsent_;
    asio::post(io_, [this, message] {
      outbox_.push_back(message);
      if (joined_) send_from_outbox(message);
    });
    sent_.wait_for(lock, patience, [this] { return unsent_ == 0; });
  }

 private:
  void connect() {
    socket_ = tcp::socket(io_);
    socket_.async_connect(endpoints_[address_], [this](const error_code& error) {
      if (leaving_) return;
      timer_.cancel();
      if (!error) return greet();
      next_address();
      if (address_ == 0) return try_again();
      connect();
    });
    timer_.expires_after(kForConnecting);
    timer_.async_wait([this](const error_code& error) {
      error_code ignored;
      if (!error) socket_.close(ignored);
    });
  }

  void next_address() { address_ = (address_ + 1) % endpoints_.size(); }

  // A supervisor that accepts and then says nothing is left at the timer's end.
  void greet() {
    handshake_.emplace(secret_, hello_of(options_.rank, options_.ranks));
    setsockopt(socket_.native_handle(), IPPROTO_TCP, TCP_USER_TIMEOUT, &kUnacknowledgedMs,
               sizeof kUnacknowledgedMs);
    connection_ = std::make_shared<Connection>(std::move(socket_));
    connection_->set_handlers([this](const Message& message) { receive(message); },
                              [this](const std::string& why) { lost(why); });
    Message hello;
    *hello.mutable_hello() = handshake_->hello();
    connection_->send(hello);
    connection_->start();
    timer_.expires_after(std::max(milliseconds(1000), options_.longest_pause));
    timer_.async_wait([this](const error_code& error) {
      if (error || leaving_ || joined_ || !connection_) return;
      connection_->close();
      lost("no answer");
    });
  }

  void lost(const std::string& why) {
    connection_.reset();
    if (std::exchange(joined_, false)) {
      spdlog::info("the supervisor does not answer ({}); the job goes on", why);
    } else {
      next_address();  // somebody else's
    }
    if (!leaving_) try_again();
  }

  void try_again() {
    timer_.expires_after(pause_);
    pause_ = std::min(2 * pause_, options_.longest_pause);
    timer_.async_wait([this](const error_code& error) {
      if (!error && !leaving_) connect();
    });
  }

  void receive(const Message& message) {
    if (message.has_challenge()) {
      Message proof;
      *proof.mutable_proof() = handshake_->answer(message.challenge());
      connection_->send(proof);
    } else if (message.has_welcome()) {
      handshake_->check(message.welcome());
      join(milliseconds(std::clamp(message.welcome().heartbeat_ms(), 10u, 60'000u)));
    } else if (message.has_refusal()) {
      spdlog::warn("the supervisor refused this rank: {}", message.refusal().reason());
    } else if (message.has_command() && joined_) {
      obey(message.command().kind());
    } else {
      throw InputError("control connection: the supervisor sent something unexpected");
    }
  }

  void join(milliseconds interval) {
    joined_ = true;
    pause_ = options_.first_pause;
    interval_ = interval;
    connection_->set_limit(kMessageLimit);
    for (const Message& message : outbox_) send_from_outbox(message);
    beat();
  }

  void beat() {
    if (!joined_) return;
    // Those that a slow network has not taken yet say enough.
    if (connection_->idle()) {
      Message message;
      *message.mutable_heartbeat() = pulse_.heartbeat();
      message.mutable_heartbeat()->set_memory_bytes(resident_bytes());
      connection_->send(message);
    }
    timer_.expires_after(interval_);
    timer_.async_wait([this](const error_code& error) {
      if (!error && !leaving_) beat();
    });
  }

  void obey(Command::Kind kind) {
    switch (kind) {
      case Command::DUMP: {
        Message message;
        *message.mutable_dump() = pulse_.dump(kDumpedOperations);
        connection_->send(message);
        return;
      }
      case Command::STOP: {
        const std::lock_guard lock(mutex_);
        stop_requested_ = true;
        if (stop_) stop_();
        return;
      }
    }
  }

  // A message counts as sent when the system has all of it. One that was lost with its connection
  // is sent again.
  void send_from_outbox(const Message& message) {
    connection_->send(message, [this] {
      outbox_.pop_front();
      const std::lock_guard lock(mutex_);
      if (--unsent_ == 0) sent_.notify_all();
    });
  }

  const ClientOptions options_;
  const Secret secret_;
  const std::vector<tcp::endpoint> endpoints_;
  const Pulse& pulse_;

  // Of the client's thread.
  asio::io_context io_;
  tcp::socket socket_;
  size_t address_ = 0;  // of endpoints_, that is tried or that answered
  asio::steady_timer timer_;
  milliseconds pause_;
  milliseconds interval_{0};
  std::optional<RankHandshake> handshake_;
  std::shared_ptr<Connection> connection_;
  std::deque<Message> outbox_;
  bool joined_ = false;
  bool leaving_ = false;

  std::mutex mutex_;
  std::condition_variable sent_;
  int unsent_ = 0;
  bool stop_requested_ = false;
  std::function<void()> stop_;
  std::thread thread_;
};

Client::Client(const ClientOptions& options, Contact contact, const Pulse& pulse)
    : impl_(std::make_unique<Impl>(options, std::move(contact), pulse)) {}
Client::~Client() = default;

void Client::on_stop(std::function<void()> stop) { impl_->on_stop(std::move(stop)); }

void Client::report_error(const ErrorReport& error, milliseconds patience) {
  Message message;
  *message.mutable_error() = error;
  impl_->report(message, patience);
}

void Client::report_end(ExitCode code, milliseconds patience) {
  Message message;
  message.mutable_finished()->set_exit_code(static_cast<int>(code));
  impl_->report(message, patience);
}

}  // namespace sprocket::control
