// What the front refuses, whatever the backend, and what it lets through.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "parallel/comm/fake_backend.h"
#include "parallel/comm/recorder.h"

namespace sprocket::comm {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class ArgumentChecks : public ::testing::Test {
 protected:
  template <class Body>
  void expect_refused(Body&& body, const std::string& what) {
    const int64_t before = world->recorder().next_sequence();
    try {
      body();
      ADD_FAILURE() << "expected an InternalError about: " << what;
    } catch (const InternalError& error) {
      EXPECT_THAT(std::string(error.what()), HasSubstr(what));
    }
    // What is refused is no operation: the sequence numbers of the ranks stay together.
    EXPECT_EQ(world->recorder().next_sequence(), before);
  }
  Work exchange(std::vector<Segment> sends, std::vector<Segment> receives) {
    return world->exchange(a, sends, b, receives);
  }

  std::unique_ptr<Communicator> world = make_fake_world(1, 3);
  std::vector<float> first = std::vector<float>(12), second = std::vector<float>(12);
  std::vector<int32_t> ints = std::vector<int32_t>(12);
  Buffer a = Buffer::of(std::span<float>(first)), b = Buffer::of(std::span<float>(second));
  Buffer i = Buffer::of(std::span<int32_t>(ints));
};

TEST_F(ArgumentChecks, ExchangeSegments) {
  expect_refused(
      [&] {
        exchange({{3, 0, 1}}, {}).wait_host();
      },
      "[rank 1/3 world] exchange: expected the peer of a send segment in 0..2, found 3");
  expect_refused(
      [&] {
        exchange({}, {{-1, 0, 1}}).wait_host();
      },
      "receive segment in 0..2, found -1");
  expect_refused(
      [&] {
        exchange({{0, 10, 3}}, {}).wait_host();
      },
      "send segment of peer 0: offset 10 and count 3 leave the buffer of 12 elements");
  expect_refused([&] { exchange({{0, -1, 3}}, {}).wait_host(); }, "offset -1");
  expect_refused([&] { exchange({{0, 0, -3}}, {}).wait_host(); }, "count -3");
  expect_refused([&] { exchange({{0, INT64_MAX, 1}}, {}).wait_host(); }, "leave the buffer");
  expect_refused(
      [&] {
        exchange({{0, 0, 2}, {0, 4, 2}}, {}).wait_host();
      },
      "at most one send segment per peer, found two of peer 0");
  expect_refused(
      [&] {
        exchange({}, {{0, 0, 4}, {2, 3, 4}}).wait_host();
      },
      "two receive segments overlap");
  expect_refused(
      [&] {
        exchange({{1, 0, 4}}, {{1, 0, 3}}).wait_host();
      },
      "sends 4 elements to itself and receives 3");
  expect_refused(
      [&] {
        exchange({{1, 0, 4}}, {}).wait_host();
      },
      "sends 4 elements to itself and receives 0");
  const std::vector<Segment> to{{0, 0, 4}}, from{{2, 3, 4}}, apart{{2, 4, 4}};
  expect_refused([&] { world->exchange(a, to, a, from).wait_host(); }, "overlaps what is sent");
  expect_refused([&] { world->exchange(a, to, i, from).wait_host(); }, "found f32 to send and i32");
  expect_refused(
      [&] {
        world->exchange({nullptr, 4, DType::kF32}, to, {}, {}).wait_host();
      },
      "has 4 elements and no memory");
  // Empty segments count for nothing; what is sent may overlap itself.
  exchange({{0, 0, 0}, {0, 0, 6}, {2, 3, 6}}, {{0, 12, 0}, {0, 0, 2}}).wait_host();
  world->exchange(a, to, a, apart).wait_host();
}

TEST_F(ArgumentChecks, Collectives) {
  const std::vector<int64_t> counts{2, 3, 4}, short_counts{2, 3}, negative{2, -3, 4};
  const Buffer own{first.data(), 3, DType::kF32}, whole{second.data(), 9, DType::kF32};
  expect_refused([&] { world->all_gather(own, whole, short_counts).wait_host(); },
                 "expected 3 counts, one per rank, found 2");
  expect_refused([&] { world->all_gather(own, whole, negative).wait_host(); },
                 "rank 1 has count -3");
  expect_refused([&] { world->all_gather(a, whole, counts).wait_host(); },
                 "expected 3 elements in the own part, found 12");
  expect_refused([&] { world->all_gather(own, b, counts).wait_host(); },
                 "expected 9 elements, the sum of the counts, found 12");
  expect_refused(
      [&] {
        world->all_gather({first.data(), 3, DType::kI32}, whole, counts).wait_host();
      },
      "expected one dtype, found i32 and f32");
  expect_refused(
      [&] {
        world->all_gather({second.data(), 3, DType::kF32}, whole, counts).wait_host();
      },
      "the own part is not at its place");
  world->all_gather({second.data() + 2, 3, DType::kF32}, whole, counts).wait_host();
  expect_refused([&] { world->reduce_scatter(whole, a, counts).wait_host(); },
                 "own part, found 12");
  expect_refused([&] { world->all_to_all(whole, a).wait_host(); }, "found 9 and 12 elements");
  expect_refused([&] { world->all_to_all(a, a).wait_host(); }, "overlap");
  expect_refused([&] { world->broadcast(a, 3).wait_host(); }, "expected a root in 0..2, found 3");
  expect_refused(
      [&] {
        world->all_reduce({nullptr, 2, DType::kF32}, ReduceOp::kSum).wait_host();
      },
      "no memory");
  expect_refused([&] { (void)world->split(-1, 0, "x"); }, "expected a colour >= 0, found -1");
}

TEST_F(ArgumentChecks, ADeviceStreamNeedsADeviceBackend) {
  int not_a_stream = 0;
  expect_refused(
      [&] { world->all_reduce(a, ReduceOp::kSum, StreamView::cuda(&not_a_stream)).wait_host(); },
      "all_reduce on communicator world: expected host memory");
}

}  // namespace
}  // namespace sprocket::comm
