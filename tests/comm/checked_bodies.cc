#include "tests/comm/checked_bodies.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace sprocket::comm::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// With two ranks neither is in the minority: the larger one is named.
int culprit(const Communicator& group) { return group.size() - 1; }
bool is_culprit(const Communicator& group) { return group.rank() == culprit(group); }

template <class Body, class Matcher>
void expect_comm_error(Body&& body, const Matcher& matcher) {
  try {
    body();
    ADD_FAILURE() << "expected a CommError, found none";
  } catch (const CommError& error) {
    EXPECT_THAT(std::string(error.what()), matcher);
  }
}

std::string culprit_calls(const Communicator& group, const std::string& what) {
  return "rank " + std::to_string(culprit(group)) + " calls " + what;
}

void another_operation(Communicator& group) {
  std::vector<float> values(17);
  const Buffer buffer = Buffer::of(std::span<float>(values));
  group.barrier();
  expect_comm_error(
      [&] {
        if (is_culprit(group)) {
          group.broadcast(buffer, 0).wait_host();
        } else {
          group.all_reduce(buffer, ReduceOp::kSum).wait_host();
        }
      },
      AllOf(HasSubstr(culprit_calls(group, "broadcast seq 1 of 17 f32, root 0")),
            HasSubstr("among them rank 0, call all_reduce seq 1 of 17 f32")));
}

void another_dtype(Communicator& group) {
  std::vector<float> floats(4);
  std::vector<int32_t> ints(4);
  expect_comm_error(
      [&] {
        group
            .all_reduce(is_culprit(group) ? Buffer::of(std::span<int32_t>(ints))
                                          : Buffer::of(std::span<float>(floats)),
                        ReduceOp::kSum)
            .wait_host();
      },
      AllOf(HasSubstr(culprit_calls(group, "all_reduce seq 0 of 4 i32")), HasSubstr("4 f32")));
}

void another_count(Communicator& group) {
  std::vector<float> values(is_culprit(group) ? 9 : 8);
  expect_comm_error(
      [&] { group.all_reduce(Buffer::of(std::span<float>(values)), ReduceOp::kSum).wait_host(); },
      AllOf(HasSubstr(culprit_calls(group, "all_reduce seq 0 of 9 f32")), HasSubstr("8 f32")));
}

void another_root(Communicator& group) {
  std::vector<float> values(3);
  expect_comm_error(
      [&] {
        group.broadcast(Buffer::of(std::span<float>(values)), is_culprit(group) ? 1 : 0)
            .wait_host();
      },
      HasSubstr(culprit_calls(group, "broadcast seq 0 of 3 f32, root 1")));
}

// The parts add up to the same number, but in another order.
void other_counts_of_parts(Communicator& group) {
  std::vector<int64_t> counts(group.size(), 2);
  counts[0] = is_culprit(group) ? 2 : 3;
  counts[1] = is_culprit(group) ? 3 : 2;
  std::vector<float> in(counts[group.rank()]), out(2 * group.size() + 1);
  expect_comm_error(
      [&] {
        group
            .all_gather(Buffer::of(std::span<float>(in)), Buffer::of(std::span<float>(out)), counts)
            .wait_host();
      },
      HasSubstr(culprit_calls(group, "all_gather seq 0 of")));
}

// One left out an operation that the others do; it is a whole operation ahead from there.
void an_operation_left_out(Communicator& group) {
  std::vector<float> values(2);
  const Buffer buffer = Buffer::of(std::span<float>(values));
  expect_comm_error(
      [&] {
        if (!is_culprit(group)) group.barrier();
        group.all_reduce(buffer, ReduceOp::kMax).wait_host();
      },
      AllOf(HasSubstr(culprit_calls(group, "all_reduce seq 0")), HasSubstr("call barrier seq 0")));
}

void counts_of_a_pair_differ(Communicator& group) {
  std::vector<float> values(20);
  const Buffer buffer = Buffer::of(std::span<float>(values));
  expect_comm_error(
      [&] {
        std::vector<Segment> send, receive;
        if (is_culprit(group)) send.push_back({0, 0, 4});
        if (group.rank() == 0) receive.push_back({culprit(group), 10, 5});
        group.exchange(buffer, send, buffer, receive).wait_host();
        group.barrier();
      },
      ::testing::AnyOf(
          HasSubstr("peer " + std::to_string(culprit(group)) + " sends 4 elements, expected 5"),
          HasSubstr("peer 0 expects 5 elements, this rank sends 4")));
}

// Nothing posted on the other side: without the check this is the hang that names nobody.
void an_unmatched_segment(Communicator& group) {
  std::vector<float> values(20);
  const Buffer buffer = Buffer::of(std::span<float>(values));
  expect_comm_error(
      [&] {
        std::vector<Segment> receive;
        if (group.rank() == 0) receive.push_back({culprit(group), 10, 5});
        group.exchange({}, {}, buffer, receive).wait_host();
        group.barrier();
      },
      ::testing::AnyOf(
          HasSubstr("peer " + std::to_string(culprit(group)) + " sends 0 elements, expected 5"),
          HasSubstr("peer 0 expects 5 elements, this rank sends 0")));
}

// The group's own deadline is minutes away; the decorator's patience ends first.
void one_does_not_come(Communicator& group) {
  const auto begin = std::chrono::steady_clock::now();
  const auto side = group.split(0, group.rank(), "side");
  if (is_culprit(group)) {
    EXPECT_THROW(side->barrier(), CommError);
  } else {
    expect_comm_error([&] { group.barrier(); },
                      AllOf(HasSubstr("barrier"), HasSubstr("seq 1"),
                            HasSubstr("agreement with rank " + std::to_string(culprit(group)))));
  }
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20));
}

}  // namespace

const std::vector<DivergingBody>& diverging_bodies() {
  static const std::vector<DivergingBody> bodies{{"AnotherOperation", another_operation},
                                                 {"AnotherDtype", another_dtype},
                                                 {"AnotherCount", another_count},
                                                 {"AnotherRoot", another_root},
                                                 {"OtherCountsOfParts", other_counts_of_parts},
                                                 {"AnOperationLeftOut", an_operation_left_out},
                                                 {"CountsOfAPairDiffer", counts_of_a_pair_differ},
                                                 {"AnUnmatchedSegment", an_unmatched_segment},
                                                 {"OneDoesNotCome", one_does_not_come}};
  return bodies;
}

}  // namespace sprocket::comm::testing
