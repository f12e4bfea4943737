#include "launcher/status/http_server.h"

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <set>
#include <thread>

#include "runtime/control/listen.h"

namespace sprocket::launcher {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using asio::ip::tcp;
using boost::system::error_code;

std::string text_of(beast::string_view text) { return {text.data(), text.size()}; }

Answer refusal_of(const error_code& error) {
  if (error == http::error::header_limit) return {.code = 431, .body = "the header is too long\n"};
  return {.code = 400, .body = "expected a question of HTTP/1.1\n"};
}

// One connection: reads a header, answers, waits until the other side has closed, and is gone.
class Visit : public std::enable_shared_from_this<Visit> {
 public:
  using Leave = std::function<void(Visit*)>;

  Visit(tcp::socket socket, const HttpOptions& options, const HttpServer::Answerer& answer,
        Leave leave)
      : stream_(std::move(socket)),
        buffer_(2 * options.header_bytes),
        answer_(answer),
        leave_(std::move(leave)) {
    parser_.header_limit(static_cast<uint32_t>(options.header_bytes));
    stream_.expires_after(options.patience);
  }

  void start() {
    http::async_read_header(
        stream_, buffer_, parser_,
        [self = shared_from_this()](const error_code& error, size_t) { self->have_read(error); });
  }

  void close() {
    error_code ignored;
    stream_.socket().close(ignored);
  }

 private:
  void have_read(const error_code& error) {
    if (!error) {
      const auto& request = parser_.get();
      const http::verb method = request.method();
      head_ = method == http::verb::head;
      Question question;
      question.known_method = head_ || method == http::verb::get;
      question.target = text_of(request.target());
      question.host = text_of(request[http::field::host]);
      question.authorization = text_of(request[http::field::authorization]);
      question.cookie = text_of(request[http::field::cookie]);
      reply(answer_(question));
    } else if (error.category() == http::make_error_code(http::error::bad_method).category() &&
               error != http::error::end_of_stream && error != http::error::partial_message) {
      reply(refusal_of(error));
    } else {
      leave_(this);
    }
  }

  void reply(Answer answer) {
    response_.result(answer.code);
    response_.set(http::field::content_type, answer.type);
    response_.set(http::field::cache_control, "no-store");
    response_.set("X-Content-Type-Options", "nosniff");
    response_.set("Referrer-Policy", "no-referrer");
    for (const auto& [name, value] : answer.headers) response_.set(name, value);
    response_.keep_alive(false);
    response_.content_length(answer.body.size());
    if (!head_) response_.body() = std::move(answer.body);
    http::async_write(stream_, response_,
                      [self = shared_from_this()](const error_code& error, size_t) {
                        if (error) return self->leave_(self.get());
                        error_code ignored;
                        self->stream_.socket().shutdown(tcp::socket::shutdown_send, ignored);
                        self->drain();
                      });
  }

  // To close a connection with bytes that nobody has read would take the answer back. The time
  // that the connection has is running.
  void drain() {
    stream_.async_read_some(asio::buffer(rest_),
                            [self = shared_from_this()](const error_code& error, size_t count) {
                              self->drained_ += count;
                              if (error || self->drained_ > kDrained)
                                return self->leave_(self.get());
                              self->drain();
                            });
  }

  static constexpr size_t kDrained = size_t{1} << 16;

  beast::tcp_stream stream_;
  beast::flat_buffer buffer_;
  http::request_parser<http::empty_body> parser_;
  http::response<http::string_body> response_;
  const HttpServer::Answerer& answer_;
  const Leave leave_;
  bool head_ = false;
  std::array<char, 4096> rest_;
  size_t drained_ = 0;
};

}  // namespace

class HttpServer::Impl {
 public:
  Impl(const HttpOptions& options, const std::string& flag, Answerer answer)
      : options_(options),
        answer_(std::move(answer)),
        acceptor_(control::listen_on(io_, options.listen, options.port, flag)) {
    port_ = acceptor_.local_endpoint().port();
    accept();
    thread_ = std::thread([this] { io_.run(); });
  }

  ~Impl() {
    asio::post(io_, [this] {
      error_code ignored;
      acceptor_.close(ignored);
      for (const auto& visit : visits_) visit->close();
    });
    thread_.join();
  }

  uint16_t port() const { return port_; }

 private:
  void accept() {
    acceptor_.async_accept([this](const error_code& error, tcp::socket socket) {
      if (!acceptor_.is_open()) return;
      if (!error && visits_.size() < options_.connections) {
        const auto visit =
            std::make_shared<Visit>(std::move(socket), options_, answer_, [this](Visit* gone) {
              gone->close();
              visits_.erase(gone->shared_from_this());
            });
        visits_.insert(visit);
        visit->start();
      }
      accept();
    });
  }

  const HttpOptions options_;
  const Answerer answer_;
  asio::io_context io_;
  tcp::acceptor acceptor_;
  uint16_t port_ = 0;
  std::set<std::shared_ptr<Visit>> visits_;
  std::thread thread_;
};

HttpServer::HttpServer(const HttpOptions& options, const std::string& flag, Answerer answer)
    : impl_(std::make_unique<Impl>(options, flag, std::move(answer))) {}
HttpServer::~HttpServer() = default;
uint16_t HttpServer::port() const { return impl_->port(); }

}  // namespace sprocket::launcher
