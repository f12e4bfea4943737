// A fake rank counts what the real one counts, and receives zeros.
#include "parallel/comm/fake_backend.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "base/error.h"
#include "parallel/comm/operation_traffic.h"
#include "parallel/comm/recorder.h"
#include "tests/comm/thread_ranks.h"

namespace sprocket::comm {
namespace {

using Counted = std::vector<std::pair<OpKind, OperationTraffic>>;

Counted counted(const Communicator& group) {
  Counted result;
  for (const auto& record : group.recorder().since(0)) {
    EXPECT_EQ(record.state, OpState::kCompleted);
    result.push_back(
        {record.op,
         {record.bytes_sent, record.bytes_received, record.messages_sent, record.volume_bytes}});
  }
  return result;
}

// By peer, which is more than the totals say.
using SentTo = std::vector<std::vector<int64_t>>;

void note(const Communicator& group, SentTo& sent_to) {
  sent_to.push_back(group.recorder().sent_to());
  EXPECT_EQ(std::accumulate(sent_to.back().begin(), sent_to.back().end(), int64_t{0}),
            group.recorder().totals().bytes_sent);
  sent_to.push_back({group.member_world_ranks().begin(), group.member_world_ranks().end()});
}

// The same calls on a real and on a fake rank: everything there is, on the group and on a part of
// it.
std::vector<Counted> calls(Communicator& group, SentTo& sent_to) {
  const int n = group.size();
  std::vector<int64_t> counts(n);
  for (int r = 0; r < n; ++r) counts[r] = (3 * r + 1) % 5;
  int64_t sum = 0;
  for (const int64_t count : counts) sum += count;
  std::vector<float> values(7), own(counts[group.rank()]), all(sum), square(3 * n), other(3 * n);
  const auto of = [](std::vector<float>& v) { return Buffer::of(std::span<float>(v)); };
  group.all_reduce(of(values), ReduceOp::kSum).wait_host();
  group.all_gather(of(own), of(all), counts).wait_host();
  group.reduce_scatter(of(all), of(own), counts).wait_host();
  group.all_to_all(of(square), of(other)).wait_host();
  group.broadcast(of(values), n / 2).wait_host();
  const Segment to{(group.rank() + 1) % n, 0, 2}, from{(group.rank() + n - 1) % n, 1, 2};
  group.exchange(of(square), {&to, 1}, of(other), {&from, 1}).wait_host();
  group.barrier();
  const auto part = group.split(group.rank() % 2, -group.rank(), "part");
  part->all_reduce(of(values), ReduceOp::kSum).wait_host();
  const auto inner = part->split(0, part->rank(), "inner");
  inner->broadcast(of(values), 0).wait_host();
  for (const Communicator* each : {&group, part.get(), inner.get()}) note(*each, sent_to);
  return {counted(group), counted(*part), counted(*inner)};
}

SplitChoice choice(const std::string& name, int rank) {
  return name == "part" ? SplitChoice{rank % 2, -rank} : SplitChoice{0, rank};
}

TEST(FakeBackend, CountsAsThreadsDo) {
  for (const int n : {1, 2, 3, 5}) {
    std::vector<std::vector<Counted>> real(n);
    std::vector<SentTo> sent_to(n);
    testing::run_ranks(
        n, [&](Communicator& group) { real[group.rank()] = calls(group, sent_to[group.rank()]); });
    for (int r = 0; r < n; ++r) {
      const auto fake = make_fake_world(r, n, {}, choice);
      SentTo faked;
      EXPECT_EQ(calls(*fake, faked), real[r]) << "rank " << r << " of " << n;
      EXPECT_EQ(faked, sent_to[r]) << "rank " << r << " of " << n;
    }
  }
}

// The closed forms by hand: 4 ranks, parts of 3, 0, 5 and 2 elements of 4 bytes.
TEST(OperationTraffic, EqualsCountsMadeByHand) {
  using Traffic = OperationTraffic;
  const std::vector<int64_t> parts{3, 0, 5, 2};
  // What the call sends to each rank is compared, too.
  std::vector<int64_t> to(4);
  const auto fresh = [&] {
    to.assign(4, 0);
    return std::span(to);
  };
  using Bytes = std::vector<int64_t>;
  EXPECT_EQ(all_gather_traffic(0, parts, 4, fresh()),
            (Traffic{3 * 3 * 4, (0 + 5 + 2) * 4, 3, 10 * 4}));
  EXPECT_EQ(to, (Bytes{0, 12, 12, 12}));
  EXPECT_EQ(all_gather_traffic(1, parts, 4, fresh()), (Traffic{0, (3 + 5 + 2) * 4, 0, 10 * 4}));
  EXPECT_EQ(to, (Bytes{0, 0, 0, 0}));
  EXPECT_EQ(reduce_scatter_traffic(0, parts, 4, fresh()),
            (Traffic{(0 + 5 + 2) * 4, 3 * 3 * 4, 2, 10 * 4}));
  EXPECT_EQ(to, (Bytes{0, 0, 20, 8}));
  EXPECT_EQ(reduce_scatter_traffic(1, parts, 4), (Traffic{(3 + 5 + 2) * 4, 0, 3, 10 * 4}));
  EXPECT_EQ(near_equal_parts(10, 4), (std::vector<int64_t>{3, 3, 2, 2}));
  EXPECT_EQ(all_reduce_traffic(0, 4, 10, 4, fresh()),
            (Traffic{(3 + 2 + 2 + 3 * 3) * 4, (3 * 3 + 3 + 2 + 2) * 4, 6, 10 * 4}));
  EXPECT_EQ(to, (Bytes{0, 6 * 4, 5 * 4, 5 * 4}));
  EXPECT_EQ(all_reduce_traffic(3, 4, 2, 4, fresh()), (Traffic{2 * 4, 2 * 4, 2, 2 * 4}));
  EXPECT_EQ(to, (Bytes{4, 4, 0, 0}));
  EXPECT_EQ(all_to_all_traffic(2, 4, 5, 4, fresh()), (Traffic{60, 60, 3, 80}));
  EXPECT_EQ(to, (Bytes{20, 20, 0, 20}));
  EXPECT_EQ(broadcast_traffic(2, 4, 2, 7, 4, fresh()), (Traffic{84, 0, 3, 28}));
  EXPECT_EQ(to, (Bytes{28, 28, 0, 28}));
  EXPECT_EQ(broadcast_traffic(1, 4, 2, 7, 4, fresh()), (Traffic{0, 28, 0, 28}));
  EXPECT_EQ(to, (Bytes{0, 0, 0, 0}));
  const std::vector<Segment> sends{{0, 0, 9}, {1, 0, 2}, {3, 0, 0}}, receives{{0, 0, 9}, {2, 9, 4}};
  EXPECT_EQ(exchange_traffic(0, sends, receives, 4, fresh()), (Traffic{8, 16, 1, 16}));
  EXPECT_EQ(to, (Bytes{0, 8, 0, 0}));
  EXPECT_EQ(exchange_traffic(0, receives, sends, 4).volume_bytes, 16) << "whichever is more";
}

TEST(FakeBackend, ReceivesZerosAndOwnParts) {
  const auto fake = make_fake_world(1, 3);
  std::vector<float> own{5, 6}, all(6, -1), square{1, 2, 3}, other(3, -1);
  const auto of = [](std::vector<float>& v) { return Buffer::of(std::span<float>(v)); };
  fake->all_gather(of(own), of(all), std::vector<int64_t>{1, 2, 3}).wait_host();
  EXPECT_EQ(all, (std::vector<float>{0, 5, 6, 0, 0, 0}));
  fake->all_to_all(of(square), of(other)).wait_host();
  EXPECT_EQ(other, (std::vector<float>{0, 2, 0}));
  const std::vector<Segment> sends{{1, 0, 2}, {2, 2, 1}}, receives{{0, 0, 1}, {1, 1, 2}};
  fake->exchange(of(square), sends, of(other), receives).wait_host();
  EXPECT_EQ(other, (std::vector<float>{0, 1, 2}));
  fake->reduce_scatter(of(square), {own.data(), 1, DType::kF32}, std::vector<int64_t>{1, 1, 1})
      .wait_host();
  EXPECT_EQ(own[0], 2);
  fake->all_reduce(of(square), ReduceOp::kSum).wait_host();
  EXPECT_EQ(square, (std::vector<float>{1, 2, 3}));
  fake->broadcast(of(square), 1).wait_host();
  EXPECT_EQ(square, (std::vector<float>{1, 2, 3}));
  fake->broadcast(of(square), 0).wait_host();
  EXPECT_EQ(square, (std::vector<float>{0, 0, 0}));
}

TEST(FakeBackend, SplitsOnlyAsItsPeersWould) {
  EXPECT_THROW((void)make_fake_world(0, 2)->split(0, 0, "x"), CommError);
  EXPECT_THROW((void)make_fake_world(1, 4, {}, choice)->split(0, 0, "part"), CommError);
  EXPECT_EQ(make_fake_world(0, 1)->split(3, 4, "x")->size(), 1);
}

TEST(FakeBackend, StaysAborted) {
  const auto fake = make_fake_world(0, 2);
  fake->abort("enough");
  EXPECT_THROW(fake->barrier(), CommError);
  EXPECT_THROW(fake->check(), CommError);
}

}  // namespace
}  // namespace sprocket::comm
