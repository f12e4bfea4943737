// Over real sockets: what reaches a port that anybody can reach.
#include "launcher/status/http_server.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <optional>

#include "base/error.h"
#include "launcher/status/status_client.h"

namespace sprocket::launcher {
namespace {

using std::chrono::milliseconds;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

class Peer {
 public:
  explicit Peer(uint16_t port) : socket_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
    const timeval patience{20, 0};
    setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    EXPECT_EQ(connect(socket_, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  }
  ~Peer() { close(socket_); }
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;

  void send(const std::string& text) const {
    ::send(socket_, text.data(), text.size(), MSG_NOSIGNAL);
  }
  // Until the other side closes; fails when it does not in time.
  std::string rest() const {
    std::string text;
    char bytes[4096];
    for (;;) {
      const ssize_t count = recv(socket_, bytes, sizeof bytes, 0);
      EXPECT_FALSE(count < 0 && errno == EAGAIN) << "nobody closed the connection";
      if (count <= 0) return text;
      text.append(bytes, static_cast<size_t>(count));
    }
  }

 private:
  const int socket_;
};

Answer echo(const Question& question) {
  return {.body = question.target + "|" + question.host + "|" + question.authorization + "|" +
                  question.cookie + (question.known_method ? "|GET" : "|other")};
}

class HttpServerTest : public ::testing::Test {
 protected:
  std::string exchange(const std::string& text) {
    const Peer peer(server_.port());
    peer.send(text);
    return peer.rest();
  }

  HttpServer server_{HttpOptions{}, "--http", echo};
};

TEST_F(HttpServerTest, AnswersAndCloses) {
  EXPECT_THAT(exchange("GET /a?b HTTP/1.1\r\nHost: h\r\nAuthorization: x\r\nCookie: c=d\r\n\r\n"),
              AllOf(StartsWith("HTTP/1.1 200 OK\r\n"), HasSubstr("\r\nContent-Length: 16\r\n"),
                    HasSubstr("Connection: close"), HasSubstr("nosniff"), HasSubstr("no-store"),
                    HasSubstr("\r\n\r\n/a?b|h|x|c=d|GET")));
}

TEST_F(HttpServerTest, HeadHasNoBody) {
  const std::string found = exchange("HEAD /a HTTP/1.1\r\nHost: h\r\n\r\n");
  EXPECT_THAT(found, AllOf(HasSubstr("Content-Length: "), Not(HasSubstr("/a|h"))));
}

TEST_F(HttpServerTest, OtherMethodsAreTheAnswerersAndTheirBodiesAreNotRead) {
  EXPECT_THAT(exchange("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nabcde"),
              HasSubstr("|other"));
  EXPECT_THAT(exchange("DELETE / HTTP/1.1\r\nHost: h\r\n\r\n"), HasSubstr("|other"));
}

TEST_F(HttpServerTest, GarbageIsRefused) {
  for (const std::string& garbage :
       {std::string("\0\1\2\3\r\n\r\n", 8), std::string("hello\r\n\r\n"),
        std::string("GET / HTTP/9.9\r\n\r\n"), std::string("GET /\r\n\r\n"),
        std::string("GET / HTTP/1.1\r\nno colon\r\n\r\n"),
        std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11)}) {
    EXPECT_THAT(exchange(garbage), StartsWith("HTTP/1.1 400")) << garbage;
  }
}

TEST_F(HttpServerTest, LongHeadersAreRefused) {
  const std::string start = "GET / HTTP/1.1\r\nHost: h\r\nX: ";
  EXPECT_THAT(exchange(start + std::string(7000, 'x') + "\r\n\r\n"), StartsWith("HTTP/1.1 200"));
  EXPECT_THAT(exchange(start + std::string(9000, 'x') + "\r\n\r\n"), StartsWith("HTTP/1.1 431"));
  EXPECT_THAT(exchange("GET /" + std::string(9000, 'x')), StartsWith("HTTP/1.1 4"));
}

TEST(HttpServer, WhoSaysNothingOrTakesHisTimeIsLeft) {
  HttpOptions options;
  options.patience = milliseconds(300);
  const HttpServer server(options, "--http", echo);
  for (const char* text : {"", "GET / HTT", "GET / HTTP/1.1\r\nHost: h\r\n"}) {
    const Peer peer(server.port());
    peer.send(text);
    EXPECT_EQ(peer.rest(), "") << text;
  }
}

TEST_F(HttpServerTest, WhoReadsNothingDoesNotKeepOthersWaiting) {
  const Peer silent(server_.port());
  silent.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
  EXPECT_THAT(exchange("GET / HTTP/1.1\r\nHost: h\r\n\r\n"), StartsWith("HTTP/1.1 200"));
}

TEST(HttpServer, ConnectionsAreCounted) {
  HttpOptions options;
  options.connections = 2;
  options.patience = std::chrono::minutes(1);
  const HttpServer server(options, "--http", echo);
  const Peer first(server.port()), second(server.port());
  const Peer third(server.port());
  third.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
  EXPECT_EQ(third.rest(), "");
  first.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
  EXPECT_THAT(first.rest(), StartsWith("HTTP/1.1 200"));
}

TEST(HttpServer, EndsWhileOthersAreConnected) {
  std::optional<HttpServer> server(std::in_place, HttpOptions{}, "--http", echo);
  const Peer peer(server->port());
  peer.send("GET / HT");
  server.reset();
  EXPECT_EQ(peer.rest(), "");
}

std::string refusal(const HttpOptions& options) {
  try {
    const HttpServer server(options, "--http", echo);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

TEST(HttpServer, APortThatIsTakenAndAddressesThatAreNone) {
  const HttpServer taken(HttpOptions{}, "--http", echo);
  HttpOptions options;
  options.port = taken.port();
  EXPECT_THAT(refusal(options),
              AllOf(StartsWith("--http: cannot listen on 127.0.0.1 port "), HasSubstr("in use")));
  options.listen = "localhost";
  EXPECT_THAT(refusal(options),
              HasSubstr("expected a numeric address to listen on, found \"localhost\""));
  options.listen = "192.0.2.1";
  EXPECT_THAT(refusal(options), HasSubstr("Cannot assign requested address"));
}

std::string asked(const std::string& url, milliseconds patience = std::chrono::seconds(20)) {
  try {
    return ask_status(url, "t", patience);
  } catch (const Error& error) {
    return error.what();
  }
}

TEST(StatusClient, AsksWithTheToken) {
  const HttpServer server(HttpOptions{}, "--http", echo);
  const std::string place = fmt::format("127.0.0.1:{}", server.port());
  EXPECT_EQ(asked("http://" + place), "/status.json|" + place + "|Bearer t||GET");
  EXPECT_EQ(asked("http://" + place + "/"), "/status.json|" + place + "|Bearer t||GET");
}

TEST(StatusClient, SaysWhatIsWrong) {
  for (const char* url : {"", "127.0.0.1:80", "https://a:1", "http://a:b", "http://a:1/page",
                          "http://u@a:1", "http://[::1:80"}) {
    EXPECT_THAT(asked(url), StartsWith("--url: expected http://HOST:PORT")) << url;
  }
  uint16_t port = 0;
  {
    const HttpServer gone(HttpOptions{}, "--http", echo);
    port = gone.port();
  }
  EXPECT_THAT(asked(fmt::format("http://127.0.0.1:{}", port)), HasSubstr("no supervisor answers"));
  const HttpServer refuses(HttpOptions{}, "--http",
                           [](const Question&) { return Answer{.code = 401}; });
  EXPECT_THAT(asked(fmt::format("http://127.0.0.1:{}", refuses.port())),
              HasSubstr("it asks for a token, and not for the one that was shown"));
  const HttpServer other(HttpOptions{}, "--http",
                         [](const Question&) { return Answer{.code = 404}; });
  EXPECT_THAT(asked(fmt::format("http://127.0.0.1:{}", other.port())),
              HasSubstr("found a program that answers 404"));
}

TEST(StatusClient, APortThatSaysNothing) {
  const int listener = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ASSERT_EQ(bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  socklen_t length = sizeof address;
  getsockname(listener, reinterpret_cast<sockaddr*>(&address), &length);
  ASSERT_EQ(listen(listener, 4), 0);
  EXPECT_THAT(asked(fmt::format("http://127.0.0.1:{}", ntohs(address.sin_port)), milliseconds(200)),
              HasSubstr("no supervisor answers there"));
  close(listener);
}

}  // namespace
}  // namespace sprocket::launcher
