// Clients and servers on real sockets, and what strangers send to either.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <array>
#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <chrono>
#include <deque>
#include <functional>
#include <optional>
#include <thread>

#include "base/error.h"
#include "runtime/control/client.h"
#include "runtime/control/framing.h"
#include "runtime/control/handshake.h"
#include "runtime/control/server.h"
#include "tests/control/raw_peer.h"

namespace sprocket::control {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::HasSubstr;
using Kind = Report::Kind;

constexpr auto kDeadline = seconds(30);  // of what happens at once on an idle machine

ServerOptions server_options(int ranks) {
  ServerOptions options;
  options.ranks = ranks;
  options.heartbeat = milliseconds(20);
  return options;
}

ClientOptions client_options(int rank, int ranks) {
  ClientOptions options;
  options.rank = rank;
  options.ranks = ranks;
  options.first_pause = milliseconds(5);
  options.longest_pause = milliseconds(50);
  return options;
}

Contact contact_of(const Secret& secret, uint16_t port) { return {secret, {{"127.0.0.1", port}}}; }

// A server whose reports are taken one by one.
class HeardServer {
 public:
  HeardServer(const ServerOptions& options, const Secret& secret) : server_(options, secret) {}

  uint16_t port() const { return server_.port(); }
  void send(Command::Kind command) { server_.send(command); }

  // The next report that `wanted` accepts; those before it are dropped.
  std::optional<Report> await(const std::function<bool(const Report&)>& wanted) {
    const auto deadline = std::chrono::steady_clock::now() + kDeadline;
    while (std::chrono::steady_clock::now() < deadline) {
      while (!reports_.empty()) {
        const Report report = reports_.front();
        reports_.pop_front();
        if (wanted(report)) return report;
      }
      for (Report& report : server_.take(milliseconds(100))) reports_.push_back(std::move(report));
    }
    ADD_FAILURE() << "waited in vain for a report";
    return std::nullopt;
  }
  std::optional<Report> await(Kind kind) {
    return await([&](const Report& report) { return report.kind == kind; });
  }

 private:
  Server server_;
  std::deque<Report> reports_;
};

Hello hello_of(int rank, int ranks) {
  Hello hello;
  hello.set_rank(rank);
  hello.set_ranks(ranks);
  return hello;
}

// Sends hello and the right proof.
void join(RawPeer& peer, RankHandshake& handshake) {
  Message message;
  *message.mutable_hello() = handshake.hello();
  peer.send(message);
  const auto challenge = peer.receive();
  ASSERT_TRUE(challenge && challenge->has_challenge());
  *message.mutable_proof() = handshake.answer(challenge->challenge());
  peer.send(message);
}

class ControlConnection : public ::testing::Test {
 protected:
  const Secret secret_ = Secret::random();
  Pulse pulse_;
};

TEST_F(ControlConnection, RanksJoinAndSayWhatTheyDo) {
  HeardServer server(server_options(2), secret_);
  pulse_.enter(Section::kStep);
  pulse_.step_done({.done = 5, .loss = 0.5});
  const Client one(client_options(1, 2), contact_of(secret_, server.port()), pulse_);
  const auto joined = server.await(Kind::kJoined);
  ASSERT_TRUE(joined);
  EXPECT_EQ(joined->rank, 1);
  EXPECT_EQ(joined->message.hello().process(), getpid());
  EXPECT_NE(joined->message.hello().host(), "");
  const auto beat = server.await(
      [](const Report& report) { return report.rank == 1 && report.message.has_heartbeat(); });
  ASSERT_TRUE(beat);
  EXPECT_EQ(beat->message.heartbeat().step(), 5);
  EXPECT_EQ(beat->message.heartbeat().loss(), 0.5);
  EXPECT_GT(beat->message.heartbeat().memory_bytes(), 1 << 20);
  pulse_.step_done({.done = 6, .loss = 0.25});
  EXPECT_TRUE(
      server.await([](const Report& report) { return report.message.heartbeat().step() == 6; }));
}

TEST_F(ControlConnection, ErrorsAndTheEndArrive) {
  HeardServer server(server_options(1), secret_);
  {
    Client client(client_options(0, 1), contact_of(secret_, server.port()), pulse_);
    ErrorReport error;
    error.set_exit_code(3);
    error.set_message("a file is damaged");
    client.report_error(error, kDeadline);
    client.report_end(ExitCode::kInput, kDeadline);
  }
  const auto error = server.await([](const Report& report) { return report.message.has_error(); });
  ASSERT_TRUE(error);
  EXPECT_EQ(error->message.error().message(), "a file is damaged");
  const auto end = server.await([](const Report& report) { return report.message.has_finished(); });
  ASSERT_TRUE(end);
  EXPECT_EQ(end->message.finished().exit_code(), 3);
  EXPECT_TRUE(server.await(Kind::kLost));
}

TEST_F(ControlConnection, CommandsArriveWheneverTheyAreSent) {
  HeardServer server(server_options(2), secret_);
  std::atomic<int> stops{0};
  Client early(client_options(0, 2), contact_of(secret_, server.port()), pulse_);
  early.on_stop([&] { ++stops; });
  ASSERT_TRUE(server.await(Kind::kJoined));
  server.send(Command::DUMP);
  EXPECT_TRUE(server.await([](const Report& report) { return report.message.has_dump(); }));
  server.send(Command::STOP);
  server.await([&](const Report&) { return stops == 1; });
  // A rank that comes after it, and a job that listens only later.
  Client late(client_options(1, 2), contact_of(secret_, server.port()), pulse_);
  server.await([&](const Report&) {
    int calls = 0;
    late.on_stop([&] { ++calls; });
    late.on_stop(nullptr);
    return calls == 1;
  });
}

TEST_F(ControlConnection, AConnectionThatEndsIsMadeAnew) {
  ServerOptions options = server_options(1);
  auto server = std::make_unique<HeardServer>(options, secret_);
  options.port = server->port();
  Client client(client_options(0, 1), contact_of(secret_, options.port), pulse_);
  ASSERT_TRUE(server->await(Kind::kJoined));
  server.reset();
  server = std::make_unique<HeardServer>(options, secret_);
  EXPECT_TRUE(server->await(Kind::kJoined));
  client.report_end(ExitCode::kOk, kDeadline);
  EXPECT_TRUE(server->await([](const Report& report) { return report.message.has_finished(); }));
}

// A port that takes no further connection and does not refuse it either.
class SwallowingPort {
 public:
  SwallowingPort() : acceptor_(io_, tcp::endpoint(asio::ip::address_v4::loopback(), 0)) {
    acceptor_.listen(0);
    for (tcp::socket& socket : waiting_) {
      socket.async_connect(acceptor_.local_endpoint(), [](const boost::system::error_code&) {});
    }
  }
  uint16_t port() const { return acceptor_.local_endpoint().port(); }

 private:
  asio::io_context io_;
  tcp::acceptor acceptor_;
  std::array<tcp::socket, 3> waiting_{tcp::socket(io_), tcp::socket(io_), tcp::socket(io_)};
};

TEST_F(ControlConnection, AddressesThatLeadNowhereOrElsewhereArePassedOver) {
  const SwallowingPort nowhere;
  const HeardServer elsewhere(server_options(1), Secret::random());
  HeardServer server(server_options(1), secret_);
  const Contact contact{secret_,
                        {{"127.0.0.1", nowhere.port()},
                         {"127.0.0.1", elsewhere.port()},
                         {"127.0.0.1", server.port()}}};
  const Client client(client_options(0, 1), contact, pulse_);
  EXPECT_TRUE(server.await(Kind::kJoined));
}

TEST_F(ControlConnection, ASecondConnectionOfARankReplacesTheFirst) {
  HeardServer server(server_options(1), secret_);
  RankHandshake first(secret_, hello_of(0, 1)), second(secret_, hello_of(0, 1));
  RawPeer one(server.port()), two(server.port());
  join(one, first);
  ASSERT_TRUE(server.await(Kind::kJoined));
  join(two, second);
  ASSERT_TRUE(server.await(Kind::kJoined));
  one.receive();  // the welcome
  EXPECT_FALSE(one.receive());
  server.send(Command::DUMP);
  two.receive();
  const auto command = two.receive();
  EXPECT_TRUE(command && command->has_command());
}

TEST_F(ControlConnection, AJobWithoutSupervisorIsNotDelayed) {
  uint16_t closed = 0;
  {
    const Server server(server_options(1), secret_);
    closed = server.port();
  }
  Client client(client_options(0, 1), contact_of(secret_, closed), pulse_);
  client.report_end(ExitCode::kOk, milliseconds(1));
}

TEST_F(ControlConnection, AnotherSecretIsRefused) {
  HeardServer server(server_options(1), secret_);
  const Client client(client_options(0, 1), contact_of(Secret::random(), server.port()), pulse_);
  const auto refused = server.await(Kind::kRefused);
  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->rank, -1);
  EXPECT_THAT(refused->what, HasSubstr("does not know the job's secret"));
}

TEST_F(ControlConnection, AReplayedProofIsRefused) {
  HeardServer server(server_options(1), secret_);
  RankHandshake handshake(secret_, hello_of(0, 1));
  Message hello, proof;
  *hello.mutable_hello() = handshake.hello();
  RawPeer honest(server.port()), thief(server.port());
  honest.send(hello);
  *proof.mutable_proof() = handshake.answer(honest.receive().value().challenge());
  honest.send(proof);
  ASSERT_TRUE(honest.receive().value().has_welcome());
  thief.send(hello);
  ASSERT_TRUE(thief.receive().value().has_challenge());
  thief.send(proof);
  EXPECT_TRUE(thief.receive().value().has_refusal());
  EXPECT_FALSE(thief.receive());
  EXPECT_TRUE(server.await(Kind::kRefused));
}

TEST_F(ControlConnection, ANewerVersionIsToldWhy) {
  HeardServer server(server_options(1), secret_);
  Message hello;
  *hello.mutable_hello() = RankHandshake(secret_, hello_of(0, 1)).hello();
  hello.mutable_hello()->set_version(kProtocolVersion + 1);
  RawPeer peer(server.port());
  peer.send(hello);
  const auto answer = peer.receive();
  ASSERT_TRUE(answer && answer->has_refusal());
  EXPECT_THAT(answer->refusal().reason(), HasSubstr("all hosts need the same sprocket"));
}

TEST_F(ControlConnection, StrangersBytesAreRefusedAndRanksStillJoin) {
  ServerOptions options = server_options(1);
  options.patience = milliseconds(50);
  HeardServer server(options, secret_);
  Message heartbeat;
  heartbeat.mutable_heartbeat()->set_step(1000);
  const std::pair<std::string, const char*> cases[] = {
      {frame("\xff\xff\xff\xff no message"), "found 15 other bytes"},
      {std::string("\0\0\x10\1", 4), "expected a message of 1 to 4096 bytes"},
      {std::string(4, '\0'), "expected a message of 1 to 4096 bytes"},
      {"GET / HTTP/1.1\r\n\r\n", "expected a message of 1 to 4096 bytes"},
      {frame(heartbeat.SerializeAsString()), "expected a hello or a proof"},
      {frame("truncated").substr(0, 6), "in time"},
  };
  for (const auto& [bytes, reason] : cases) {
    RawPeer stranger(server.port());
    stranger.send_bytes(bytes);
    while (stranger.receive()) {
    }
    const auto refused = server.await(Kind::kRefused);
    ASSERT_TRUE(refused);
    EXPECT_EQ(refused->rank, -1);
    EXPECT_THAT(refused->what, HasSubstr(reason));
  }
  std::vector<RawPeer> crowd;
  for (int i = 0; i < 100; ++i) crowd.emplace_back(server.port());
  const Client client(client_options(0, 1), contact_of(secret_, server.port()), pulse_);
  EXPECT_TRUE(server.await(Kind::kJoined));
}

TEST_F(ControlConnection, ARankThatSendsNonsenseIsCutOff) {
  HeardServer server(server_options(1), secret_);
  RankHandshake handshake(secret_, hello_of(0, 1));
  RawPeer peer(server.port());
  join(peer, handshake);
  ASSERT_TRUE(server.await(Kind::kJoined));
  peer.send_bytes(std::string(4, '\x7f'));
  const auto lost = server.await(Kind::kLost);
  ASSERT_TRUE(lost);
  EXPECT_EQ(lost->rank, 0);
  EXPECT_THAT(lost->what, HasSubstr("expected a message of"));
}

TEST_F(ControlConnection, OnlyTheSupervisorIsObeyed) {
  RawListener impostor;
  std::atomic<bool> stopped{false};
  Client client(client_options(0, 1), contact_of(secret_, impostor.port()), pulse_);
  client.on_stop([&] { stopped = true; });
  Message challenge, welcome, stop;
  challenge.mutable_challenge()->set_nonce(random_bytes(kNonceBytes));
  welcome.mutable_welcome()->set_mac(random_bytes(32));
  stop.mutable_command()->set_kind(Command::STOP);
  {
    RawPeer rank = impostor.accept();
    ASSERT_TRUE(rank.receive().value().has_hello());
    rank.send(stop);
    EXPECT_FALSE(rank.receive());
  }
  {
    RawPeer rank = impostor.accept();
    ASSERT_TRUE(rank.receive().value().has_hello());
    rank.send(challenge);
    ASSERT_TRUE(rank.receive().value().has_proof());
    rank.send(welcome);
    rank.send(stop);
    EXPECT_FALSE(rank.receive());
  }
  EXPECT_FALSE(stopped);
}

TEST_F(ControlConnection, ATakenPortIsSaid) {
  const Server server(server_options(1), secret_);
  ServerOptions options = server_options(1);
  options.port = server.port();
  EXPECT_THAT([&] { Server other(options, secret_); },
              ::testing::ThrowsMessage<ConfigError>(HasSubstr(fmt::format(
                  "cannot listen on 127.0.0.1 port {}: Address already in use", server.port()))));
  options.listen = "somewhere";
  EXPECT_THROW(Server(options, secret_), ConfigError);
}

}  // namespace
}  // namespace sprocket::control
