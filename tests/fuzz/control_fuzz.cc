// Any bytes in any pieces on a control connection: messages, or an end with InputError. Nobody
// without the secret is admitted.
//
// Input: one byte for the end that reads (0: supervisor, 1: rank), one for the size of the pieces
// (0: all at once), then the stream. Nonces and MACs cannot be guessed: "right" stands for the
// right one, which whoever knows the secret would send.
#include <memory>
#include <string>

#include "base/error.h"
#include "runtime/control/handshake.h"
#include "runtime/control/message_reader.h"
#include "tests/fuzz/expect.h"

namespace sprocket::control {
namespace {

constexpr const char* kRight = "right";
constexpr int kRanks = 2;

const Secret& secret() {
  static const Secret secret = Secret::from_hex(std::string(64, '5'));
  return secret;
}

// The supervisor's end: a stranger, then a rank.
class SupervisorEnd {
 public:
  // Of the next message.
  size_t limit() const { return admitted_ ? kMessageLimit : kGreetingLimit; }

  void take(Message message) {
    if (admitted_) return;
    const bool knows = make_right(message);
    const Message reply = handshake_.answer(message);
    FUZZ_EXPECT(reply.has_challenge() == message.has_hello());
    if (reply.has_challenge()) challenge_ = reply.challenge();
    if (!reply.has_welcome()) return;
    FUZZ_EXPECT(knows && peer_);
    FUZZ_EXPECT(handshake_.hello().rank() >= 0 && handshake_.hello().rank() < kRanks);
    peer_->check(reply.welcome());
    admitted_ = true;
  }

 private:
  // Whether the message is a proof of who knows the secret.
  bool make_right(Message& message) {
    if (message.has_hello() && message.hello().nonce() == kRight) {
      peer_ = std::make_unique<RankHandshake>(secret(), message.hello());
      const uint32_t version = message.hello().version();
      *message.mutable_hello() = peer_->hello();
      message.mutable_hello()->set_version(version);
    }
    if (!message.has_proof() || message.proof().mac() != kRight || !peer_ ||
        !challenge_.has_nonce())
      return false;
    *message.mutable_proof() = peer_->answer(challenge_);
    return true;
  }

  SupervisorHandshake handshake_{secret(), kRanks};
  std::unique_ptr<RankHandshake> peer_;
  Challenge challenge_;
  bool admitted_ = false;
};

// The rank's end, until it is welcome.
class RankEnd {
 public:
  size_t limit() const { return kGreetingLimit; }

  void take(Message message) {
    if (message.has_challenge()) {
      make_right(*message.mutable_challenge());
      proof_ = handshake_.answer(message.challenge());
    } else if (message.has_welcome()) {
      const bool knows = message.welcome().mac() == kRight && proof_.has_mac();
      if (knows) *message.mutable_welcome() = peer_.answer(proof_);
      handshake_.check(message.welcome());
      FUZZ_EXPECT(knows);
    }
  }

 private:
  void make_right(Challenge& challenge) {
    if (challenge.nonce() == kRight) challenge = peer_.answer(handshake_.hello());
  }

  RankHandshake handshake_{secret(), [] {
                             Hello hello;
                             hello.set_rank(1);
                             hello.set_ranks(kRanks);
                             return hello;
                           }()};
  SupervisorHandshake peer_{secret(), kRanks};
  Proof proof_;
};

template <class End>
void hear(std::string_view stream, size_t piece) {
  MessageReader reader(kGreetingLimit);
  End end;
  try {
    for (size_t at = 0; at < stream.size(); at += piece) {
      reader.append(stream.substr(at, piece));
      while (const std::optional<Message> message = reader.next()) {
        end.take(*message);
        reader.set_limit(end.limit());
      }
    }
  } catch (const InputError&) {
  }
}

}  // namespace
}  // namespace sprocket::control

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sprocket::control;
  if (size < 3) return 0;
  const std::string_view stream(reinterpret_cast<const char*>(data) + 2, size - 2);
  const size_t piece = data[1] == 0 ? stream.size() : data[1];
  if (data[0] % 2 == 0) {
    hear<SupervisorEnd>(stream, piece);
  } else {
    hear<RankEnd>(stream, piece);
  }
  return 0;
}
