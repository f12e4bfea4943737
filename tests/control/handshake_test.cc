#include "runtime/control/handshake.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace sprocket::control {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::ThrowsMessage;

Hello hello_of(int rank, int ranks) {
  Hello hello;
  hello.set_rank(rank);
  hello.set_ranks(ranks);
  return hello;
}

TEST(Secret, HasTheMacOfRfc4231) {
  // Test case 2; a key of 4 bytes has the MACs of the same one with zeros behind it.
  const Secret secret = Secret::from_hex("4a656665" + std::string(56, '0'));
  const std::string mac = secret.mac("what do ya want for nothing?");
  std::string digits;
  for (const char byte : mac) digits += fmt::format("{:02x}", static_cast<unsigned char>(byte));
  EXPECT_EQ(digits, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
}

TEST(Secret, HasOneLengthAndIsNotRepeatedInErrors) {
  const std::string digits = Secret::random().hex();
  EXPECT_EQ(Secret::from_hex(digits).hex(), digits);
  EXPECT_NE(Secret::random().hex(), digits);
  for (const std::string& wrong :
       {std::string(), digits.substr(1), digits + "0", "G" + digits.substr(1)}) {
    EXPECT_THAT([&] { Secret::from_hex(wrong); }, ThrowsMessage<InputError>(::testing::AllOf(
                                                      HasSubstr("expected 64 hexadecimal digits"),
                                                      Not(HasSubstr(digits.substr(1))))));
  }
}

TEST(Handshake, BothSidesKnowTheSecret) {
  const Secret secret = Secret::random();
  RankHandshake rank(secret, hello_of(3, 4));
  SupervisorHandshake supervisor(secret, 4);
  const Proof proof = rank.answer(supervisor.answer(rank.hello()));
  rank.check(supervisor.answer(proof));
  EXPECT_EQ(supervisor.hello().rank(), 3);
}

TEST(Handshake, AnotherSecretIsRefusedByBoth) {
  const Secret own = Secret::random(), other = Secret::random();
  RankHandshake rank(own, hello_of(0, 1));
  SupervisorHandshake supervisor(other, 1);
  const Proof proof = rank.answer(supervisor.answer(rank.hello()));
  EXPECT_THROW(supervisor.answer(proof), InputError);
  Welcome welcome;
  welcome.set_mac(other.mac("anything"));
  EXPECT_THROW(rank.check(welcome), InputError);
  EXPECT_THROW(rank.check(Welcome()), InputError);
}

TEST(Handshake, ARecordedProofIsWorthNothingOnAnotherConnection) {
  const Secret secret = Secret::random();
  RankHandshake rank(secret, hello_of(0, 2));
  SupervisorHandshake first(secret, 2), second(secret, 2);
  const Proof proof = rank.answer(first.answer(rank.hello()));
  first.answer(proof);
  second.answer(rank.hello());
  EXPECT_THROW(second.answer(proof), InputError);
}

TEST(Handshake, AProofIsOfItsRankAndRole) {
  const Secret secret = Secret::random();
  RankHandshake rank(secret, hello_of(0, 2));
  SupervisorHandshake supervisor(secret, 2);
  const Challenge challenge = supervisor.answer(rank.hello());
  const Proof proof = rank.answer(challenge);
  Proof reflected;
  reflected.set_mac(supervisor.answer(proof).mac());
  EXPECT_THROW(supervisor.answer(reflected), InputError);
  Hello other = rank.hello();
  other.set_rank(1);
  supervisor.answer(other);
  EXPECT_THROW(supervisor.answer(proof), InputError);
}

TEST(Handshake, OtherVersionsAndJobsAreRefusedWithAReason) {
  const Secret secret = Secret::random();
  const auto refusal = [&](const Hello& hello) {
    SupervisorHandshake supervisor(secret, 2);
    try {
      supervisor.answer(hello);
    } catch (const InputError& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  const Hello right = RankHandshake(secret, hello_of(1, 2)).hello();
  EXPECT_EQ(refusal(right), "");
  Hello newer = right;
  newer.set_version(kProtocolVersion + 1);
  EXPECT_THAT(refusal(newer), HasSubstr("expected version 1 of the protocol, found 2"));
  for (const auto& [rank, ranks] : {std::pair{2, 2}, {-1, 2}, {1, 3}}) {
    Hello wrong = right;
    wrong.set_rank(rank);
    wrong.set_ranks(ranks);
    EXPECT_THAT(refusal(wrong), HasSubstr("expected one of 2 ranks"));
  }
  Hello bare = right;
  bare.clear_nonce();
  EXPECT_THAT(refusal(bare), HasSubstr("random bytes"));
}

TEST(Handshake, AStrangerSaysHelloAndProofAlone) {
  const Secret secret = Secret::random();
  RankHandshake rank(secret, hello_of(0, 1));
  SupervisorHandshake supervisor(secret, 1);
  Message message;
  EXPECT_THROW(supervisor.answer(message), InputError);
  message.mutable_heartbeat()->set_step(1);
  EXPECT_THROW(supervisor.answer(message), InputError);
  *message.mutable_hello() = rank.hello();
  const Message challenge = supervisor.answer(message);
  ASSERT_TRUE(challenge.has_challenge());
  *message.mutable_proof() = rank.answer(challenge.challenge());
  const Message welcome = supervisor.answer(message);
  ASSERT_TRUE(welcome.has_welcome());
  rank.check(welcome.welcome());
}

TEST(Handshake, NothingIsProvedOutOfOrder) {
  const Secret secret = Secret::random();
  SupervisorHandshake supervisor(secret, 1);
  EXPECT_THROW(supervisor.answer(Proof()), InputError);
  RankHandshake rank(secret, hello_of(0, 1));
  EXPECT_THROW(rank.answer(Challenge()), InputError);
}

}  // namespace
}  // namespace sprocket::control
