// What recording costs a rank: nanoseconds of a scope, recorded or not, and of an operation's
// record. One JSON line; medians over rounds.
#include <algorithm>
#include <cstdio>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/timeline.h"
#include "parallel/comm/missing_peers.h"
#include "parallel/comm/recorder.h"

namespace {

using namespace sprocket;

constexpr int kRounds = 21;
constexpr int64_t kCalls = 20'000;

// Nanoseconds of one of kCalls calls.
template <class Call>
double median_ns(Call&& call) {
  std::vector<double> rounds;
  for (int round = 0; round < kRounds; ++round) {
    const int64_t begin = monotonic_ns();
    for (int64_t i = 0; i < kCalls; ++i) call(i);
    rounds.push_back(static_cast<double>(monotonic_ns() - begin) / static_cast<double>(kCalls));
  }
  std::nth_element(rounds.begin(), rounds.begin() + kRounds / 2, rounds.end());
  return rounds[kRounds / 2];
}

double scope_ns(bool recording) {
  Timeline timeline;
  timeline.set_recording(recording);
  return median_ns([&](int64_t i) {
    const Timeline::Scope scope(&timeline, Activity::kCompute, "scope", [&] {
      return Work{static_cast<double>(i), 1};
    });
    if (i % 1000 == 0) timeline.take();
  });
}

double record_ns(int ranks) {
  comm::Recorder recorder(4096, ranks);
  const std::vector<int64_t> sent_to(ranks, 100);
  return median_ns([&](int64_t i) {
    comm::OpRecord record;
    record.sequence = i;
    record.enqueue_ns = monotonic_ns();
    const uint64_t ticket = recorder.begin(record, sent_to);
    recorder.start(ticket, monotonic_ns());
    recorder.complete(ticket, monotonic_ns(), comm::OpState::kCompleted, {1, i});
  });
}

// What an operation with a message to and from each of so many peers notes about them.
double missing_peers_ns(int peers) {
  return median_ns([&](int64_t) {
    comm::MissingPeers missing;
    for (int peer = 0; peer < peers; ++peer) missing.add(peer), missing.add(peer);
    missing.begin();
    for (int peer = 0; peer < peers; ++peer) {
      missing.remove(peer);
      missing.remove(peer);
      missing.look();
    }
  });
}

}  // namespace

int main() {
  const nlohmann::json line = {{"bench", "recording"},
                               {"clock_ns", median_ns([](int64_t) { monotonic_ns(); })},
                               {"scope_ns", scope_ns(true)},
                               {"scope_not_recorded_ns", scope_ns(false)},
                               {"record_ns", record_ns(4)},
                               {"record_of_64_ranks_ns", record_ns(64)},
                               {"last_peer_of_3_ns", missing_peers_ns(3)}};
  std::printf("%s\n", line.dump().c_str());
}
