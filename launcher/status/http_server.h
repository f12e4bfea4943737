// Answers GET and HEAD over HTTP/1.1, one question a connection.
//
// Whoever can reach the port may send what he likes for as long as he likes: questions are limited
// in size, time and number, and have no body.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace sprocket::launcher {

struct Question {
  bool known_method = false;  // GET or HEAD
  std::string target;         // as it was sent: "/status.json?x=1"
  std::string host, authorization, cookie;
};

struct Answer {
  unsigned code = 200;
  std::string type = "text/plain; charset=utf-8";
  std::string body;
  std::vector<std::pair<std::string, std::string>> headers;  // beside those of every answer
};

struct HttpOptions {
  std::string listen = "127.0.0.1";          // numeric address
  uint16_t port = 0;                         // 0: any that is free
  std::chrono::milliseconds patience{5000};  // with one connection, altogether
  size_t connections = 32;                   // at a time; more are closed at once
  size_t header_bytes = 8192;
};

class HttpServer {
 public:
  using Answerer = std::function<Answer(const Question&)>;

  // Listens from now on; `answer` is called by a thread of the server's, and may not throw. Throws
  // ConfigError, which begins with `flag`, when the address or port cannot be had.
  HttpServer(const HttpOptions& options, const std::string& flag, Answerer answer);
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  uint16_t port() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace sprocket::launcher
