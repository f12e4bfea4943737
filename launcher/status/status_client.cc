#include "launcher/status/status_client.h"

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <regex>

#include "base/error.h"

namespace sprocket::launcher {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using asio::ip::tcp;
using boost::system::error_code;

// A rank takes half a kilobyte.
constexpr size_t kLongestAnswer = size_t{64} << 20;

struct Place {
  std::string host, port;
};

Place parse_url(const std::string& url) {
  static const std::regex form(R"(http://(\[[0-9A-Fa-f:.]+\]|[^/:@\[\]]+)(?::(\d{1,5}))?/?)");
  std::smatch found;
  if (!std::regex_match(url, found, form)) {
    throw ConfigError(
        fmt::format("--url: expected http://HOST:PORT, as `sprocket launch --http` says it, found "
                    "\"{}\"",
                    url));
  }
  std::string host = found[1];
  if (host.starts_with('[')) host = host.substr(1, host.size() - 2);
  return {host, found[2].matched ? found[2].str() : "80"};
}

class Visit {
 public:
  Visit(Place place, const std::string& token, std::chrono::milliseconds patience)
      : place_(std::move(place)), stream_(io_) {
    request_.method(http::verb::get);
    request_.target("/status.json");
    request_.version(11);
    const bool v6 = place_.host.find(':') != std::string::npos;
    request_.set(http::field::host,
                 fmt::format("{}{}{}:{}", v6 ? "[" : "", place_.host, v6 ? "]" : "", place_.port));
    if (!token.empty()) request_.set(http::field::authorization, "Bearer " + token);
    parser_.body_limit(kLongestAnswer);
    const tcp::resolver::results_type found =
        tcp::resolver(io_).resolve(place_.host, place_.port, error_);
    if (error_) return;
    stream_.expires_after(patience);
    stream_.async_connect(found, [this](const error_code& error, const tcp::endpoint&) {
      if (!failed(error)) write();
    });
    io_.run();
  }

  const error_code& error() const { return error_; }
  const http::response<http::string_body>& answer() const { return parser_.get(); }

 private:
  bool failed(const error_code& error) {
    error_ = error;
    return static_cast<bool>(error);
  }
  void write() {
    http::async_write(stream_, request_, [this](const error_code& error, size_t) {
      if (!failed(error)) read();
    });
  }
  void read() {
    http::async_read(stream_, buffer_, parser_,
                     [this](const error_code& error, size_t) { failed(error); });
  }

  const Place place_;
  asio::io_context io_;
  beast::tcp_stream stream_;
  http::request<http::empty_body> request_;
  http::response_parser<http::string_body> parser_;
  beast::flat_buffer buffer_;
  error_code error_;
};

}  // namespace

std::string ask_status(const std::string& url, const std::string& token,
                       std::chrono::milliseconds patience) {
  const Visit visit(parse_url(url), token, patience);
  if (visit.error().category() == http::make_error_code(http::error::bad_method).category()) {
    throw InputError(fmt::format("{}: expected `sprocket launch` there, found another program ({})",
                                 url, visit.error().message()));
  }
  if (visit.error()) {
    throw InputError(
        fmt::format("{}: no supervisor answers there: {}", url, visit.error().message()));
  }
  const http::status code = visit.answer().result();
  if (code == http::status::ok) return visit.answer().body();
  if (code == http::status::unauthorized) {
    throw InputError(fmt::format("{}: it asks for a token{}", url,
                                 token.empty() ? " (--token-file)"
                                               : ", and not for the one that was shown: it is "
                                                 "another job's, or of an earlier launch"));
  }
  throw InputError(
      fmt::format("{}: expected `sprocket launch` there, found a program that answers "
                  "{} to /status.json",
                  url, visit.answer().result_int()));
}

}  // namespace sprocket::launcher
