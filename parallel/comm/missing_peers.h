// Which peers an operation still waits for, in a few words: what LastPeer comes from.
#pragma once

#include <cstdint>

#include "base/timeline.h"
#include "parallel/comm/recorder.h"

namespace sprocket::comm {

// Messages are added, then begin() is called once; from then on look() after any were removed.
class MissingPeers {
 public:
  void add(int peer) { count(peer, 1); }
  void remove(int peer) { count(peer, -1); }

  void begin() { look(); }
  void look() {
    if (messages_ == 0) {
      if (alone_.peer >= 0) last_ = {alone_.peer, monotonic_ns() - alone_.since_ns};
    } else if (alone_.peer < 0 && are_of_one()) {
      alone_ = {static_cast<int>(sum_ / messages_), monotonic_ns()};
    }
  }

  // Once no message is missing.
  const LastPeer& last() const { return last_; }

 private:
  void count(int peer, int64_t messages) {
    messages_ += messages;
    sum_ += messages * peer;
    squares_ += messages * peer * int64_t{peer};
  }
  // Where Cauchy's and Schwarz's inequality is an equality, all messages are of the same peer.
  bool are_of_one() const { return messages_ * squares_ == sum_ * sum_; }

  struct Alone {
    int peer = -1;
    int64_t since_ns = 0;
  };
  int64_t messages_ = 0, sum_ = 0, squares_ = 0;
  Alone alone_;
  LastPeer last_;
};

// Of two rounds of one operation, the last peer that was alone for longer.
inline LastPeer longer(const LastPeer& a, const LastPeer& b) {
  return a.peer < 0 || (b.peer >= 0 && b.alone_ns > a.alone_ns) ? b : a;
}

}  // namespace sprocket::comm
