// Who is who on a new connection. Both sides prove that they know the secret, which never travels:
//
//   rank        hello {version, rank, ranks, nonce}
//   supervisor  challenge {nonce}
//   rank        proof    HMAC(secret, "rank" and both nonces and the hello)
//   supervisor  welcome  HMAC(secret, "supervisor" and the same)
//
// Both nonces are new for every connection. What follows is neither signed nor encrypted.
#pragma once

#include <optional>
#include <string>

#include "runtime/control/control.pb.h"
#include "runtime/control/secret.h"

namespace sprocket::control {

inline constexpr uint32_t kProtocolVersion = 1;

// The rank's side of one connection.
class RankHandshake {
 public:
  RankHandshake(const Secret& secret, Hello hello);
  const Hello& hello() const { return hello_; }

  // The proof. Throws InputError for what is no challenge.
  Proof answer(const Challenge& challenge);
  // Throws InputError when it is not from who wrote the secret.
  void check(const Welcome& welcome) const;

 private:
  const Secret& secret_;
  Hello hello_;
  std::string challenge_;
};

// The supervisor's side of one connection.
class SupervisorHandshake {
 public:
  SupervisorHandshake(const Secret& secret, int ranks);

  // Challenge or welcome, to what somebody says who has not proved anything yet. Throws InputError
  // for all but a hello and a proof, and as the two below.
  Message answer(const Message& message);
  // Throws InputError, which says what was expected, for a hello of another version or job.
  Challenge answer(const Hello& hello);
  // Throws InputError for a wrong proof.
  Welcome answer(const Proof& proof) const;
  const Hello& hello() const { return hello_; }

 private:
  const Secret& secret_;
  const int ranks_;
  Hello hello_;
  const std::string nonce_;
};

}  // namespace sprocket::control
