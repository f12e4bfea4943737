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

// Waits elsewhere, by polling, which has no deadline, until the abort of the group that `side` was
// split from is heard there too.
void stay_away(Communicator& side) {
  std::vector<float> values(1);
  Work work = side.all_reduce(Buffer::of(std::span<float>(values)), ReduceOp::kSum);
  while (!work.done()) std::this_thread::yield();
  comm_error_of([&] { work.wait_host(); });
}

void expect_aborted_for_good(Communicator& group) {
  EXPECT_THROW(group.barrier(), CommError);
  EXPECT_THROW(group.check(), CommError);
  std::vector<float> values(3);
  EXPECT_THROW(group.all_reduce(Buffer::of(std::span<float>(values)), ReduceOp::kSum).wait_host(),
               CommError);
}

Work exchange_with_all(Communicator& group, std::vector<float>& in, std::vector<float>& out) {
  std::vector<Segment> segments;
  for (int peer = 0; peer < group.size(); ++peer) segments.push_back({peer, peer, 1});
  in.resize(group.size());
  out.resize(group.size());
  return group.exchange(Buffer::of(std::span<float>(in)), segments,
                        Buffer::of(std::span<float>(out)), segments);
}

// The deadline's message names operation, sequence number and the one rank that did not come.
void a_peer_never_arrives(Communicator& group) {
  const int absent = group.size() - 1;
  const auto side = group.split(0, group.rank(), "side");
  if (group.rank() == absent) {
    stay_away(*side);
  } else {
    std::vector<float> in, out;
    Work work = exchange_with_all(group, in, out);
    const auto error = comm_error_of([&] { work.wait_host(); });
    ASSERT_TRUE(error);
    EXPECT_EQ(error->where().op, "exchange");
    EXPECT_EQ(error->where().sequence, 1);
    EXPECT_EQ(error->where().communicator, group.name());
    EXPECT_THAT(error->what(), AllOf(HasSubstr("exchange"), HasSubstr("seq 1"),
                                     HasSubstr("timed out after 400 ms"),
                                     HasSubstr("rank " + std::to_string(absent) + ", which")));
    EXPECT_EQ(group.recorder().since(1).front().state, OpState::kFailed);
  }
  expect_aborted_for_good(group);
}

void a_peer_never_arrives_at_a_reduction(Communicator& group) {
  const auto side = group.split(0, group.rank(), "side");
  if (group.rank() == 0) {
    stay_away(*side);
  } else {
    std::vector<double> values(100);
    const auto error = comm_error_of([&] {
      group.all_reduce(Buffer::of(std::span<double>(values)), ReduceOp::kSum).wait_host();
    });
    ASSERT_TRUE(error);
    EXPECT_THAT(error->what(), AllOf(HasSubstr("all_reduce"), HasSubstr("rank 0, which")));
  }
  expect_aborted_for_good(group);
}

// Everybody hears of it long before the deadline, by name and with the reason.
void a_peer_aborts_while_others_wait(Communicator& group) {
  const auto begin = std::chrono::steady_clock::now();
  const int leaving = group.size() / 2;
  if (group.rank() == leaving) {
    EXPECT_NO_THROW(group.check());
    group.abort("out of paper");
  } else {
    std::vector<float> in, out;
    const auto error = comm_error_of([&] {
      Work work = exchange_with_all(group, in, out);
      work.wait_host();
    });
    ASSERT_TRUE(error);
    EXPECT_EQ(error->where().peer, leaving);
    EXPECT_THAT(error->what(), AllOf(HasSubstr("world rank " + std::to_string(leaving)),
                                     HasSubstr("out of paper")));
  }
  expect_aborted_for_good(group);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, kPrompt);
}

// An exception that unwinds past a started operation takes the group with it.
void a_peer_throws_past_its_work(Communicator& group) {
  const auto begin = std::chrono::steady_clock::now();
  const auto side = group.split(0, group.rank(), "side");
  std::vector<float> values(5);
  const auto reduce = [&] {
    Work work = side->all_reduce(Buffer::of(std::span<float>(values)), ReduceOp::kSum);
    if (group.rank() == 0) throw std::runtime_error("no more ink");
    work.wait_host();
    // A short message may have arrived before the end; the next operation then meets it.
    side->barrier();
    side->barrier();
  };
  if (group.rank() == 0) {
    EXPECT_THROW(reduce(), std::runtime_error);
  } else {
    const auto error = comm_error_of(reduce);
    ASSERT_TRUE(error);
    EXPECT_THAT(error->what(), HasSubstr("an exception unwound"));
  }
  expect_aborted_for_good(*side);
  // The group that it was split from lives on.
  group.barrier();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, kPrompt);
}

void lengths_differ(Communicator& group, int64_t sent, int64_t expected, const char* found) {
  const auto begin = std::chrono::steady_clock::now();
  std::vector<float> values(8);
  const Buffer buffer = Buffer::of(std::span<float>(values));
  const auto error = comm_error_of([&] {
    if (group.rank() == 0) {
      const Segment to{1, 0, sent};
      group.exchange(buffer, {&to, 1}, {}, {}).wait_host();
    } else if (group.rank() == 1) {
      const Segment from{0, 0, expected};
      group.exchange({}, {}, buffer, {&from, 1}).wait_host();
    }
    group.barrier();
  });
  ASSERT_TRUE(error);
  if (group.rank() == 1) {
    EXPECT_EQ(error->where().peer, 0);
    EXPECT_THAT(error->what(), HasSubstr("peer 0 sent"));
    EXPECT_THAT(error->what(), HasSubstr(found));
  }
  expect_aborted_for_good(group);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, kPrompt);
}

void a_message_is_too_long(Communicator& group) { lengths_differ(group, 7, 3, "12"); }
void a_message_is_too_short(Communicator& group) { lengths_differ(group, 3, 7, "28"); }

}  // namespace

const std::vector<AbortingBody>& aborting_bodies() {
  static const std::vector<AbortingBody> bodies{
      {"APeerNeverArrives", kSoon, a_peer_never_arrives},
      {"APeerNeverArrivesAtAReduction", kSoon, a_peer_never_arrives_at_a_reduction},
      {"APeerAbortsWhileOthersWait", kFar, a_peer_aborts_while_others_wait},
      {"APeerThrowsPastItsWork", kFar, a_peer_throws_past_its_work},
      {"AMessageIsTooLong", kFar, a_message_is_too_long},
      {"AMessageIsTooShort", kFar, a_message_is_too_short}};
  return bodies;
}

}  // namespace sprocket::comm::testing
