#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <thread>

#include "base/error.h"
#include "parallel/comm/recorder.h"
#include "tests/comm/communicator_bodies.h"

namespace sprocket::comm::testing {
namespace {

using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::HasSubstr;
using namespace std::chrono_literals;

constexpr auto kSoon = 400ms;
constexpr auto kSoonOnDevices = 2s;
constexpr auto kFar = 60s;  // a test that needs it to pass is a failed test
constexpr auto kPrompt = 20s;

template <class Body>
std::optional<CommError> comm_error_of(Body&& body) {
  try {
    body();
  } catch (const CommError& error) {
    return error;
  }
  ADD_FAILURE() << "expected a CommError, found none";
  return std::nullopt;
}

Work reduce(Communicator& group, TestMemory& memory, Values<float>& values) {
  return group.all_reduce(values.buffer(), ReduceOp::kSum, memory.stream());
}

// Waits elsewhere, by polling, which has no deadline, until the abort of the group that `side` was
// split from is heard there too.
void stay_away(Communicator& side, TestMemory& memory) {
  Values<float> values(memory, 1);
  Work work = reduce(side, memory, values);
  while (!work.done()) std::this_thread::yield();
  comm_error_of([&] { work.wait_host(); });
}

// Where starting takes long, nobody's deadline begins before everybody has started.
std::unique_ptr<Communicator> started_side(Communicator& group, TestMemory& memory) {
  auto side = group.split(0, group.rank(), "side");
  if (!memory.knows_its_peers()) side->barrier();
  return side;
}

void expect_aborted_for_good(Communicator& group, TestMemory& memory) {
  EXPECT_THROW(group.barrier(), CommError);
  EXPECT_THROW(group.check(), CommError);
  Values<float> values(memory, 3);
  EXPECT_THROW(reduce(group, memory, values).wait_host(), CommError);
}

class ExchangeWithAll {
 public:
  ExchangeWithAll(Communicator& group, TestMemory& memory)
      : group_(group),
        stream_(memory.stream()),
        in_(memory, group.size()),
        out_(memory, group.size()) {
    for (int peer = 0; peer < group.size(); ++peer) segments_.push_back({peer, peer, 1});
  }
  Work start() {
    return group_.exchange(in_.buffer(), segments_, out_.buffer(), segments_, stream_);
  }

 private:
  Communicator& group_;
  const StreamView stream_;
  Values<float> in_, out_;
  std::vector<Segment> segments_;
};

// The deadline's message names operation, sequence number and the one rank that did not come.
void a_peer_never_arrives(Communicator& group, TestMemory& memory) {
  const int absent = group.size() - 1;
  const auto side = started_side(group, memory);
  if (group.rank() == absent) {
    stay_away(*side, memory);
  } else {
    ExchangeWithAll exchange(group, memory);
    Work work = exchange.start();
    const auto error = comm_error_of([&] { work.wait_host(); });
    ASSERT_TRUE(error);
    EXPECT_EQ(error->where().op, "exchange");
    EXPECT_EQ(error->where().sequence, 1);
    EXPECT_EQ(error->where().communicator, group.name());
    EXPECT_THAT(error->what(), AllOf(HasSubstr("exchange"), HasSubstr("seq 1")));
    if (memory.knows_its_peers()) {
      EXPECT_THAT(error->what(), AllOf(HasSubstr("timed out after 400 ms"),
                                       HasSubstr("rank " + std::to_string(absent) + ", which")));
    } else {  // the first one's abort may come before the own deadline
      EXPECT_THAT(error->what(), HasSubstr("timed out after 2000 ms waiting for the device"));
    }
    EXPECT_EQ(group.recorder().since(1).front().state, OpState::kFailed);
  }
  expect_aborted_for_good(group, memory);
}

void a_peer_never_arrives_at_a_reduction(Communicator& group, TestMemory& memory) {
  const auto side = started_side(group, memory);
  if (group.rank() == 0) {
    stay_away(*side, memory);
  } else {
    Values<double> values(memory, 100);
    const auto error = comm_error_of(
        [&] { group.all_reduce(values.buffer(), ReduceOp::kSum, memory.stream()).wait_host(); });
    ASSERT_TRUE(error);
    EXPECT_THAT(error->what(), HasSubstr("all_reduce"));
    if (memory.knows_its_peers()) {
      EXPECT_THAT(error->what(), HasSubstr("rank 0, which"));
    }
  }
  expect_aborted_for_good(group, memory);
}

// Everybody hears of it long before the deadline, by name and with the reason.
void a_peer_aborts_while_others_wait(Communicator& group, TestMemory& memory) {
  const auto begin = std::chrono::steady_clock::now();
  const int leaving = group.size() / 2;
  if (group.rank() == leaving) {
    EXPECT_NO_THROW(group.check());
    group.abort("out of paper");
  } else {
    ExchangeWithAll exchange(group, memory);
    const auto error = comm_error_of([&] {
      Work work = exchange.start();
      work.wait_host();
    });
    ASSERT_TRUE(error);
    EXPECT_EQ(error->where().peer, leaving);
    EXPECT_THAT(error->what(), AllOf(HasSubstr("world rank " + std::to_string(leaving)),
                                     HasSubstr("out of paper")));
  }
  expect_aborted_for_good(group, memory);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, kPrompt);
}

// An exception that unwinds past a started operation takes the group with it.
void a_peer_throws_past_its_work(Communicator& group, TestMemory& memory) {
  const auto begin = std::chrono::steady_clock::now();
  const auto side = started_side(group, memory);
  Values<float> values(memory, 5);
  const auto reduce_and_meet = [&] {
    Work work = reduce(*side, memory, values);
    if (group.rank() == 0) throw std::runtime_error("no more ink");
    work.wait_host();
    // A short message may have arrived before the end; the next operation then meets it.
    side->barrier();
    side->barrier();
  };
  if (group.rank() == 0) {
    EXPECT_THROW(reduce_and_meet(), std::runtime_error);
  } else {
    const auto error = comm_error_of(reduce_and_meet);
    ASSERT_TRUE(error);
    EXPECT_THAT(error->what(), HasSubstr("an exception unwound"));
  }
  expect_aborted_for_good(*side, memory);
  // The group that it was split from lives on.
  group.barrier();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, kPrompt);
}

void lengths_differ(Communicator& group, TestMemory& memory, int64_t sent, int64_t expected,
                    const char* found) {
  const auto begin = std::chrono::steady_clock::now();
  Values<float> values(memory, 8);
  const auto error = comm_error_of([&] {
    if (group.rank() == 0) {
      const Segment to{1, 0, sent};
      group.exchange(values.buffer(), {&to, 1}, {}, {}, memory.stream()).wait_host();
    } else if (group.rank() == 1) {
      const Segment from{0, 0, expected};
      group.exchange({}, {}, values.buffer(), {&from, 1}, memory.stream()).wait_host();
    }
    group.barrier();
  });
  ASSERT_TRUE(error);
  if (group.rank() == 1) {
    EXPECT_EQ(error->where().peer, 0);
    EXPECT_THAT(error->what(), HasSubstr("peer 0 sent"));
    EXPECT_THAT(error->what(), HasSubstr(found));
  }
  expect_aborted_for_good(group, memory);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, kPrompt);
}

void a_message_is_too_long(Communicator& group, TestMemory& memory) {
  lengths_differ(group, memory, 7, 3, "12");
}
void a_message_is_too_short(Communicator& group, TestMemory& memory) {
  lengths_differ(group, memory, 3, 7, "28");
}

}  // namespace

std::vector<AbortingBody> aborting_bodies(TestMemory& memory) {
  struct Unbound {
    const char* name;
    std::chrono::milliseconds timeout;
    void (*run)(Communicator&, TestMemory&);
    bool needs_lengths = false;
  };
  const Unbound bodies[] = {
      {"APeerNeverArrives", kSoon, a_peer_never_arrives},
      {"APeerNeverArrivesAtAReduction", kSoon, a_peer_never_arrives_at_a_reduction},
      {"APeerAbortsWhileOthersWait", kFar, a_peer_aborts_while_others_wait},
      {"APeerThrowsPastItsWork", kFar, a_peer_throws_past_its_work},
      {"AMessageIsTooLong", kFar, a_message_is_too_long, true},
      {"AMessageIsTooShort", kFar, a_message_is_too_short, true}};
  std::vector<AbortingBody> bound;
  for (const auto& body : bodies) {
    if (body.needs_lengths && !memory.knows_its_peers()) continue;
    const bool longer = body.timeout == kSoon && !memory.knows_its_peers();
    bound.push_back({body.name, longer ? kSoonOnDevices : body.timeout,
                     [run = body.run, &memory](Communicator& group) { run(group, memory); }});
  }
  return bound;
}

}  // namespace sprocket::comm::testing
