#include "tests/comm/communicator_bodies.h"

#include <gtest/gtest.h>

#include <numeric>

#include "base/bfloat16.h"
#include "parallel/comm/operation_traffic.h"
#include "parallel/comm/recorder.h"

namespace sprocket::comm::testing {
namespace {

// Uneven, with empty ranks: 3, 0, 5, 2, 3, 0, …
std::vector<int64_t> uneven_counts(int size) {
  constexpr int64_t kPattern[] = {3, 0, 5, 2};
  std::vector<int64_t> counts(size);
  for (int r = 0; r < size; ++r) counts[r] = kPattern[r % 4];
  return counts;
}

int64_t sum(const std::vector<int64_t>& counts) {
  return std::accumulate(counts.begin(), counts.end(), int64_t{0});
}

// Element i of rank r: distinct, and exact in fp32.
double value(int rank, int64_t i) { return 1000.0 * rank + static_cast<double>(i); }

template <class T>
Buffer buffer(std::vector<T>& values) {
  return Buffer::of(std::span<T>(values));
}

template <class T>
void all_reduce_of_type(Communicator& group, int64_t count) {
  std::vector<T> values(count);
  for (int64_t i = 0; i < count; ++i) values[i] = static_cast<T>((group.rank() + 1) * (i % 7));
  std::vector<T> greatest = values, least = values;
  group.all_reduce(buffer(values), ReduceOp::kSum).wait_host();
  group.all_reduce(buffer(greatest), ReduceOp::kMax).wait_host();
  group.all_reduce(buffer(least), ReduceOp::kMin).wait_host();
  const int64_t n = group.size();
  for (int64_t i = 0; i < count; ++i) {
    ASSERT_EQ(values[i], static_cast<T>(n * (n + 1) / 2 * (i % 7))) << i;
    ASSERT_EQ(greatest[i], static_cast<T>(n * (i % 7))) << i;
    ASSERT_EQ(least[i], static_cast<T>(i % 7)) << i;
  }
}

void all_reduce(Communicator& group) {
  for (const int64_t count : {0, 1, 2, 3, 7, 64, 1031}) {
    all_reduce_of_type<double>(group, count);
    all_reduce_of_type<float>(group, count);
    all_reduce_of_type<int64_t>(group, count);
    all_reduce_of_type<int32_t>(group, count);
    all_reduce_of_type<uint16_t>(group, count);
    all_reduce_of_type<uint8_t>(group, count);
  }
}

// A sum of which every order has other bits: rank order must be kept.
float rough(int rank, int64_t i) {
  return static_cast<float>(1 + (rank * 2654435761u + static_cast<uint32_t>(i) * 40503u) % 9973) /
         (rank % 3 == 0 ? 3.0f : 7000.0f);
}

void sums_follow_rank_order(Communicator& group) {
  constexpr int64_t kCount = 777;
  std::vector<float> values(kCount);
  std::vector<BFloat16> low(kCount);
  std::vector<_Float16> half(kCount);
  for (int64_t i = 0; i < kCount; ++i) {
    values[i] = rough(group.rank(), i);
    low[i] = BFloat16(values[i]);
    half[i] = static_cast<_Float16>(values[i]);
  }
  group.all_reduce(buffer(values), ReduceOp::kSum).wait_host();
  group.all_reduce(buffer(low), ReduceOp::kSum).wait_host();
  group.all_reduce({half.data(), kCount, DType::kF16}, ReduceOp::kSum).wait_host();
  for (int64_t i = 0; i < kCount; ++i) {
    float expected = rough(0, i);
    float low_expected = static_cast<float>(BFloat16(rough(0, i)));
    float half_expected = static_cast<float>(static_cast<_Float16>(rough(0, i)));
    for (int r = 1; r < group.size(); ++r) {
      expected += rough(r, i);
      low_expected += static_cast<float>(BFloat16(rough(r, i)));
      half_expected += static_cast<float>(static_cast<_Float16>(rough(r, i)));
    }
    ASSERT_EQ(values[i], expected) << i;
    ASSERT_EQ(low[i].bits, BFloat16(low_expected).bits) << i;
    ASSERT_EQ(half[i], static_cast<_Float16>(half_expected)) << i;
  }
}

void all_gather(Communicator& group) {
  const auto counts = uneven_counts(group.size());
  for (const bool in_place : {false, true}) {
    std::vector<float> in(counts[group.rank()]), out(sum(counts), -1);
    const int64_t own = std::accumulate(counts.begin(), counts.begin() + group.rank(), int64_t{0});
    for (size_t i = 0; i < in.size(); ++i) {
      in[i] = out[own + i] = static_cast<float>(value(group.rank(), i));
    }
    const Buffer source =
        in_place ? Buffer{out.data() + own, counts[group.rank()], DType::kF32} : buffer(in);
    group.all_gather(source, buffer(out), counts).wait_host();
    int64_t at = 0;
    for (int r = 0; r < group.size(); ++r) {
      for (int64_t i = 0; i < counts[r]; ++i) ASSERT_EQ(out[at++], value(r, i)) << "rank " << r;
    }
  }
}

void reduce_scatter(Communicator& group) {
  const auto counts = uneven_counts(group.size());
  const int64_t own = std::accumulate(counts.begin(), counts.begin() + group.rank(), int64_t{0});
  for (const bool in_place : {false, true}) {
    std::vector<double> in(sum(counts)), out(counts[group.rank()], -1);
    for (size_t i = 0; i < in.size(); ++i) in[i] = value(group.rank(), i);
    const Buffer target =
        in_place ? Buffer{in.data() + own, counts[group.rank()], DType::kF64} : buffer(out);
    group.reduce_scatter(buffer(in), target, counts).wait_host();
    for (int64_t i = 0; i < counts[group.rank()]; ++i) {
      double expected = 0;
      for (int r = 0; r < group.size(); ++r) expected += value(r, own + i);
      ASSERT_EQ(in_place ? in[own + i] : out[i], expected);
    }
  }
}

void all_to_all(Communicator& group) {
  for (const int64_t part : {0, 1, 5}) {
    std::vector<int32_t> in(part * group.size()), out(in.size(), -1);
    for (size_t i = 0; i < in.size(); ++i) in[i] = static_cast<int32_t>(value(group.rank(), i));
    group.all_to_all(buffer(in), buffer(out)).wait_host();
    for (int r = 0; r < group.size(); ++r) {
      for (int64_t i = 0; i < part; ++i) {
        ASSERT_EQ(out[r * part + i], value(r, group.rank() * part + i));
      }
    }
  }
}

void broadcast(Communicator& group) {
  for (int root = 0; root < group.size(); ++root) {
    std::vector<double> values(root == 0 ? 0 : 17, group.rank());
    if (group.rank() == root) {
      for (size_t i = 0; i < values.size(); ++i) values[i] = value(root, i);
    }
    group.broadcast(buffer(values), root).wait_host();
    for (size_t i = 0; i < values.size(); ++i) ASSERT_EQ(values[i], value(root, i));
  }
}

// Rank r sends (r + 2 p) % 4 elements to p, itself included; some of them none.
struct Uneven {
  std::vector<Segment> send, receive;
  int64_t sent = 0, received = 0;

  explicit Uneven(const Communicator& group) {
    const auto count = [](int from, int to) { return int64_t{(from + 2 * to) % 4}; };
    for (int peer = group.size() - 1; peer >= 0; --peer) {
      send.push_back({peer, sent, count(group.rank(), peer)});
      receive.push_back({peer, received, count(peer, group.rank())});
      sent += send.back().count;
      received += receive.back().count;
    }
  }
};

void fill(const Communicator& group, const Uneven& plan, std::vector<float>& in) {
  for (const auto& segment : plan.send) {
    for (int64_t i = 0; i < segment.count; ++i) {
      in[segment.offset + i] = static_cast<float>(value(group.rank(), 10 * segment.peer + i));
    }
  }
}

void expect_received(const Communicator& group, const Uneven& plan, const std::vector<float>& out) {
  for (const auto& segment : plan.receive) {
    for (int64_t i = 0; i < segment.count; ++i) {
      ASSERT_EQ(out[segment.offset + i], value(segment.peer, 10 * group.rank() + i));
    }
  }
}

void exchange(Communicator& group) {
  const Uneven plan(group);
  std::vector<float> in(plan.sent), out(plan.received, -1);
  fill(group, plan, in);
  group.exchange(buffer(in), plan.send, buffer(out), plan.receive).wait_host();
  expect_received(group, plan, out);
  // Nobody sends anything: nothing to agree upon, not even the type.
  group.exchange({}, {}, {}, {}).wait_host();
}

// Even ranks only send to the next odd one: one-sided buffers, ranks with nothing to do.
void one_sided_exchange(Communicator& group) {
  std::vector<int64_t> values(9, group.rank());
  if (group.rank() % 2 == 0 && group.rank() + 1 < group.size()) {
    const Segment to{group.rank() + 1, 2, 7};
    group.exchange(buffer(values), {&to, 1}, {}, {}).wait_host();
  } else if (group.rank() % 2 == 1) {
    const Segment from{group.rank() - 1, 1, 7};
    group.exchange({}, {}, buffer(values), {&from, 1}).wait_host();
    EXPECT_EQ(values.front(), group.rank());
    EXPECT_EQ(values[1], group.rank() - 1);
    EXPECT_EQ(values[7], group.rank() - 1);
    EXPECT_EQ(values.back(), group.rank());
  } else {
    group.exchange({}, {}, {}, {}).wait_host();
  }
}

void large_exchange(Communicator& group) {
  constexpr int64_t kCount = 300'000;  // beyond what a transport sends without a handshake
  std::vector<float> in(kCount), out(kCount, -1);
  for (int64_t i = 0; i < kCount; ++i) in[i] = static_cast<float>(group.rank() + i % 1000);
  const int n = group.size(), next = (group.rank() + 1) % n, last = (group.rank() + n - 1) % n;
  const Segment to{next, 0, kCount}, from{last, 0, kCount};
  group.exchange(buffer(in), {&to, 1}, buffer(out), {&from, 1}).wait_host();
  for (int64_t i = 0; i < kCount; ++i) ASSERT_EQ(out[i], last + i % 1000);
}

// Several operations under way, waited for in another order than issued, and in another one on the
// odd ranks. A reduction needs its host to go on while that host waits for something else.
void any_order_of_waits(Communicator& group) {
  std::vector<double> sums(50, group.rank()), more(20, 1);
  const Uneven plan(group);
  std::vector<float> in(plan.sent), out(plan.received, -1);
  fill(group, plan, in);
  Work reduced = group.all_reduce(buffer(sums), ReduceOp::kSum);
  Work moved = group.exchange(buffer(in), plan.send, buffer(out), plan.receive);
  Work counted = group.all_reduce(buffer(more), ReduceOp::kSum);
  if (group.rank() % 2 == 0) {
    reduced.wait_host();
    counted.wait_host();
    moved.wait_host();
  } else {
    counted.wait_host();
    moved.wait_host();
    reduced.wait_host();
  }
  const int n = group.size();
  EXPECT_EQ(sums[49], n * (n - 1) / 2);
  EXPECT_EQ(more[19], n);
  expect_received(group, plan, out);
}

// Even ranks wait before they issue the next operation, odd ranks issue both and wait for the
// second first: right as long as the first advances meanwhile.
void waiting_for_the_later_one_first(Communicator& group) {
  std::vector<double> first(40, 1), second(3, 2);
  Work one = group.all_reduce(buffer(first), ReduceOp::kSum);
  if (group.rank() % 2 == 0) one.wait_host();
  Work two = group.all_reduce(buffer(second), ReduceOp::kSum);
  two.wait_host();
  one.wait_host();
  EXPECT_EQ(first[39], group.size());
  EXPECT_EQ(second[0], 2 * group.size());
}

void dropped_handles(Communicator& group) {
  const Uneven plan(group);
  std::vector<float> in(plan.sent), out(plan.received, -1);
  fill(group, plan, in);
  { const Work dropped = group.exchange(buffer(in), plan.send, buffer(out), plan.receive); }
  expect_received(group, plan, out);
  std::vector<float> sums(5, 1);
  Work replaced = group.all_reduce(buffer(sums), ReduceOp::kSum);
  replaced = Work();
  EXPECT_EQ(sums[4], group.size());
  EXPECT_TRUE(replaced.done());
}

void done_without_blocking(Communicator& group) {
  std::vector<float> values(11, 1);
  Work work = group.all_reduce(buffer(values), ReduceOp::kSum);
  while (!work.done()) {
  }
  EXPECT_EQ(values[10], group.size());
  work.wait(StreamView::host());
}

void split_into_alternating_groups(Communicator& group) {
  const auto part = group.split(group.rank() % 2, -group.rank(), "parity");
  const int members = (group.size() + 1 - group.rank() % 2) / 2;
  ASSERT_EQ(part->size(), members);
  ASSERT_EQ(part->rank(), members - 1 - group.rank() / 2) << "keys reverse the order";
  EXPECT_EQ(part->name(), "parity");
  std::vector<int32_t> own{group.rank()}, all(members);
  part->all_gather(buffer(own), buffer(all), std::vector<int64_t>(members, 1)).wait_host();
  for (int i = 0; i < members; ++i) {
    EXPECT_EQ(all[i], 2 * (members - 1 - i) + group.rank() % 2);
  }
  // Parent and part have operations under way at once.
  std::vector<float> wide(3, 1), narrow(3, 1);
  Work in_parent = group.all_reduce(buffer(wide), ReduceOp::kSum);
  Work in_part = part->all_reduce(buffer(narrow), ReduceOp::kSum);
  in_part.wait_host();
  in_parent.wait_host();
  EXPECT_EQ(wide[0], group.size());
  EXPECT_EQ(narrow[0], members);
}

void nested_splits(Communicator& group) {
  auto outer = group.split(group.rank() % 3, 0, "outer");
  auto inner = outer->split(outer->rank() % 2, 0, "inner");
  outer.reset();
  std::vector<int32_t> own{group.rank()}, all(inner->size());
  inner->all_gather(buffer(own), buffer(all), std::vector<int64_t>(inner->size(), 1)).wait_host();
  for (int i = 0; i < inner->size(); ++i) {
    EXPECT_EQ(all[i] % 3, group.rank() % 3);
    EXPECT_EQ(all[i] / 3 % 2, group.rank() / 3 % 2);
  }
  const auto alone = group.split(group.rank(), 0, "alone");
  EXPECT_EQ(alone->size(), 1);
  alone->barrier();
  const auto whole = group.split(5, group.rank(), "whole");
  EXPECT_EQ(whole->size(), group.size());
  EXPECT_EQ(whole->rank(), group.rank());
  whole->barrier();
}

void traffic_equals_closed_forms(Communicator& group) {
  const auto own = group.split(0, group.rank(), "counted");
  const int rank = own->rank(), size = own->size();
  const auto counts = uneven_counts(size);
  std::vector<float> values(10), whole(sum(counts)), part(counts[rank]), square(3 * size),
      other(3 * size);
  const Uneven plan(*own);
  std::vector<float> in(plan.sent), out(plan.received);
  own->all_reduce(buffer(values), ReduceOp::kSum).wait_host();
  own->all_gather(buffer(part), buffer(whole), counts).wait_host();
  own->reduce_scatter(buffer(whole), buffer(part), counts).wait_host();
  own->all_to_all(buffer(square), buffer(other)).wait_host();
  own->broadcast(buffer(values), size - 1).wait_host();
  own->exchange(buffer(in), plan.send, buffer(out), plan.receive).wait_host();
  own->barrier();
  const std::vector<std::pair<OpKind, OperationTraffic>> expected{
      {OpKind::kAllReduce, all_reduce_traffic(rank, size, 10, 4)},
      {OpKind::kAllGather, all_gather_traffic(rank, counts, 4)},
      {OpKind::kReduceScatter, reduce_scatter_traffic(rank, counts, 4)},
      {OpKind::kAllToAll, all_to_all_traffic(size, 3, 4)},
      {OpKind::kBroadcast, broadcast_traffic(rank, size, size - 1, 10, 4)},
      {OpKind::kExchange, exchange_traffic(rank, plan.send, plan.receive, 4)},
      {OpKind::kBarrier, {}}};
  const auto records = own->recorder().since(0);
  ASSERT_EQ(records.size(), expected.size());
  int64_t before = 0;
  for (size_t i = 0; i < records.size(); ++i) {
    const auto& record = records[i];
    EXPECT_EQ(record.sequence, static_cast<int64_t>(i));
    EXPECT_EQ(record.op, expected[i].first);
    EXPECT_EQ((OperationTraffic{record.bytes_sent, record.bytes_received, record.messages_sent}),
              expected[i].second)
        << name_of(record.op);
    EXPECT_EQ(record.state, OpState::kCompleted);
    EXPECT_LE(before, record.enqueue_ns);
    EXPECT_LE(record.enqueue_ns, record.start_ns);
    EXPECT_LE(record.start_ns, record.end_ns);
    before = record.end_ns;
  }
}

}  // namespace

const std::vector<CommunicatorBody>& communicator_bodies() {
  static const std::vector<CommunicatorBody> bodies{
      {"AllReduce", all_reduce},
      {"SumsFollowRankOrder", sums_follow_rank_order},
      {"AllGather", all_gather},
      {"ReduceScatter", reduce_scatter},
      {"AllToAll", all_to_all},
      {"Broadcast", broadcast},
      {"Exchange", exchange},
      {"OneSidedExchange", one_sided_exchange},
      {"LargeExchange", large_exchange},
      {"AnyOrderOfWaits", any_order_of_waits},
      {"WaitingForTheLaterOneFirst", waiting_for_the_later_one_first},
      {"DroppedHandles", dropped_handles},
      {"DoneWithoutBlocking", done_without_blocking},
      {"SplitIntoAlternatingGroups", split_into_alternating_groups},
      {"NestedSplits", nested_splits},
      {"TrafficEqualsClosedForms", traffic_equals_closed_forms}};
  return bodies;
}

}  // namespace sprocket::comm::testing
