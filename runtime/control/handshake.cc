#include "runtime/control/handshake.h"

#include "base/error.h"

namespace sprocket::control {
namespace {

// Lengths make the parts unambiguous.
std::string signed_text(const char* role, const Hello& hello, const std::string& challenge) {
  return fmt::format("sprocket control {} {} {} {} {} ", role, hello.version(), hello.rank(),
                     hello.ranks(), hello.nonce().size()) +
         hello.nonce() + challenge;
}

}  // namespace

RankHandshake::RankHandshake(const Secret& secret, Hello hello)
    : secret_(secret), hello_(std::move(hello)) {
  hello_.set_version(kProtocolVersion);
  hello_.set_nonce(random_bytes(kNonceBytes));
}

Proof RankHandshake::answer(const Challenge& challenge) {
  if (challenge.nonce().size() != kNonceBytes) {
    throw InputError(fmt::format("control connection: expected a challenge of {} bytes, found {}",
                                 kNonceBytes, challenge.nonce().size()));
  }
  challenge_ = challenge.nonce();
  Proof proof;
  proof.set_mac(secret_.mac(signed_text("rank", hello_, challenge_)));
  return proof;
}

void RankHandshake::check(const Welcome& welcome) const {
  if (!challenge_.empty() &&
      equal_macs(welcome.mac(), secret_.mac(signed_text("supervisor", hello_, challenge_)))) {
    return;
  }
  throw InputError("control connection: whoever answers does not know the job's secret");
}

SupervisorHandshake::SupervisorHandshake(const Secret& secret, int ranks)
    : secret_(secret), ranks_(ranks), nonce_(random_bytes(kNonceBytes)) {}

Message SupervisorHandshake::answer(const Message& message) {
  Message reply;
  if (message.has_hello()) {
    *reply.mutable_challenge() = answer(message.hello());
  } else if (message.has_proof()) {
    *reply.mutable_welcome() = answer(message.proof());
  } else {
    throw InputError("control connection: expected a hello or a proof, found something else");
  }
  return reply;
}

Challenge SupervisorHandshake::answer(const Hello& hello) {
  if (hello.version() != kProtocolVersion) {
    throw InputError(
        fmt::format("control connection: expected version {} of the protocol, found {}: all hosts "
                    "need the same sprocket",
                    kProtocolVersion, hello.version()));
  }
  if (hello.ranks() != ranks_ || hello.rank() < 0 || hello.rank() >= ranks_) {
    throw InputError(
        fmt::format("control connection: expected one of {} ranks, found rank {} of {}", ranks_,
                    hello.rank(), hello.ranks()));
  }
  if (hello.nonce().size() != kNonceBytes) {
    throw InputError(fmt::format("control connection: expected {} random bytes, found {}",
                                 kNonceBytes, hello.nonce().size()));
  }
  hello_ = hello;
  Challenge challenge;
  challenge.set_nonce(nonce_);
  return challenge;
}

Welcome SupervisorHandshake::answer(const Proof& proof) const {
  if (hello_.nonce().empty() ||
      !equal_macs(proof.mac(), secret_.mac(signed_text("rank", hello_, nonce_)))) {
    throw InputError("control connection: whoever connects does not know the job's secret");
  }
  Welcome welcome;
  welcome.set_mac(secret_.mac(signed_text("supervisor", hello_, nonce_)));
  return welcome;
}

}  // namespace sprocket::control
