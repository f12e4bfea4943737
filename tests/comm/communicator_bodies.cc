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
std::vector<T> own_values(const Communicator& group, int64_t count) {
  std::vector<T> values(count);
  for (int64_t i = 0; i < count; ++i) values[i] = static_cast<T>(value(group.rank(), i));
  return values;
}

template <class T>
void all_reduce_of_type(Communicator& group, TestMemory& memory, int64_t count) {
  if (!memory.reduces(kDTypeOf<T>)) return;
  std::vector<T> own(count);
  for (int64_t i = 0; i < count; ++i) own[i] = static_cast<T>((group.rank() + 1) * (i % 7));
  Values<T> sums(memory, own), maxima(memory, own), minima(memory, own);
  group.all_reduce(sums.buffer(), ReduceOp::kSum, memory.stream()).wait_host();
  group.all_reduce(maxima.buffer(), ReduceOp::kMax, memory.stream()).wait_host();
  group.all_reduce(minima.buffer(), ReduceOp::kMin, memory.stream()).wait_host();
  const int64_t n = group.size();
  const auto sum_of = sums.read(), greatest = maxima.read(), least = minima.read();
  for (int64_t i = 0; i < count; ++i) {
    ASSERT_EQ(sum_of[i], static_cast<T>(n * (n + 1) / 2 * (i % 7))) << i;
    ASSERT_EQ(greatest[i], static_cast<T>(n * (i % 7))) << i;
    ASSERT_EQ(least[i], static_cast<T>(i % 7)) << i;
  }
}

void all_reduce(Communicator& group, TestMemory& memory) {
  for (const int64_t count : {0, 1, 2, 3, 7, 64, 1031}) {
    all_reduce_of_type<double>(group, memory, count);
    all_reduce_of_type<float>(group, memory, count);
    all_reduce_of_type<int64_t>(group, memory, count);
    all_reduce_of_type<int32_t>(group, memory, count);
    all_reduce_of_type<uint16_t>(group, memory, count);
    all_reduce_of_type<uint8_t>(group, memory, count);
  }
}

// A sum of which every order has other bits.
float rough(int rank, int64_t i) {
  return static_cast<float>(1 + (rank * 2654435761u + static_cast<uint32_t>(i) * 40503u) % 9973) /
         (rank % 3 == 0 ? 3.0f : 7000.0f);
}

template <class T>
std::vector<T> reduced_rough(Communicator& group, TestMemory& memory, int64_t count) {
  std::vector<T> own(count);
  for (int64_t i = 0; i < count; ++i) own[i] = static_cast<T>(rough(group.rank(), i));
  Values<T> values(memory, own);
  group.all_reduce(values.buffer(), ReduceOp::kSum, memory.stream()).wait_host();
  return values.read();
}

constexpr int64_t kRough = 777;

void sums_follow_rank_order(Communicator& group, TestMemory& memory) {
  if (!memory.reduces_in_rank_order()) return;
  const auto values = reduced_rough<float>(group, memory, kRough);
  const auto low = reduced_rough<BFloat16>(group, memory, kRough);
  const auto half = reduced_rough<_Float16>(group, memory, kRough);
  for (int64_t i = 0; i < kRough; ++i) {
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

// In whatever order: each addition rounds a partial sum, and all terms are positive, so the error
// is at most (ranks - 1) unit roundoffs of the whole sum, to first order.
template <class T>
void expect_close_sums(Communicator& group, TestMemory& memory, double unit) {
  const auto first = reduced_rough<T>(group, memory, kRough);
  const auto again = reduced_rough<T>(group, memory, kRough);
  for (int64_t i = 0; i < kRough; ++i) {
    double expected = 0;
    for (int r = 0; r < group.size(); ++r) {
      expected += static_cast<double>(static_cast<float>(static_cast<T>(rough(r, i))));
    }
    const double bound = 1.01 * (group.size() - 1) * unit * expected;
    ASSERT_NEAR(static_cast<float>(first[i]), expected, bound) << i;
    ASSERT_EQ(static_cast<float>(first[i]), static_cast<float>(again[i])) << i;
  }
}

void sums_are_near_and_repeatable(Communicator& group, TestMemory& memory) {
  expect_close_sums<float>(group, memory, 0x1p-24);
  expect_close_sums<BFloat16>(group, memory, 0x1p-8);
  expect_close_sums<_Float16>(group, memory, 0x1p-11);
}

void gather(Communicator& group, TestMemory& memory, const std::vector<int64_t>& counts) {
  const int64_t own = std::accumulate(counts.begin(), counts.begin() + group.rank(), int64_t{0});
  const auto mine = own_values<float>(group, counts[group.rank()]);
  for (const bool in_place : {false, true}) {
    std::vector<float> initial(sum(counts), -1);
    std::copy(mine.begin(), mine.end(), initial.begin() + own);
    Values<float> in(memory, mine), out(memory, initial);
    const Buffer source = in_place ? out.slice(own, counts[group.rank()]) : in.buffer();
    group.all_gather(source, out.buffer(), counts, memory.stream()).wait_host();
    const auto all = out.read();
    int64_t at = 0;
    for (int r = 0; r < group.size(); ++r) {
      for (int64_t i = 0; i < counts[r]; ++i) ASSERT_EQ(all[at++], value(r, i)) << "rank " << r;
    }
  }
}

void all_gather(Communicator& group, TestMemory& memory) {
  gather(group, memory, uneven_counts(group.size()));
  gather(group, memory, std::vector<int64_t>(group.size(), 6));
}

void scatter(Communicator& group, TestMemory& memory, const std::vector<int64_t>& counts) {
  const int64_t own = std::accumulate(counts.begin(), counts.begin() + group.rank(), int64_t{0});
  const int64_t count = counts[group.rank()];
  for (const bool in_place : {false, true}) {
    Values<double> in(memory, own_values<double>(group, sum(counts))), out(memory, count, -1.0);
    const Buffer target = in_place ? in.slice(own, count) : out.buffer();
    group.reduce_scatter(in.buffer(), target, counts, memory.stream()).wait_host();
    const auto whole = in.read(), part = out.read();
    for (int64_t i = 0; i < count; ++i) {
      double expected = 0;
      for (int r = 0; r < group.size(); ++r) expected += value(r, own + i);
      ASSERT_EQ(in_place ? whole[own + i] : part[i], expected);
    }
  }
}

void reduce_scatter(Communicator& group, TestMemory& memory) {
  scatter(group, memory, uneven_counts(group.size()));
  scatter(group, memory, std::vector<int64_t>(group.size(), 6));
}

void all_to_all(Communicator& group, TestMemory& memory) {
  for (const int64_t part : {0, 1, 5}) {
    Values<int32_t> in(memory, own_values<int32_t>(group, part * group.size()));
    Values<int32_t> out(memory, part * group.size(), -1);
    group.all_to_all(in.buffer(), out.buffer(), memory.stream()).wait_host();
    const auto received = out.read();
    for (int r = 0; r < group.size(); ++r) {
      for (int64_t i = 0; i < part; ++i) {
        ASSERT_EQ(received[r * part + i], value(r, group.rank() * part + i));
      }
    }
  }
}

void broadcast(Communicator& group, TestMemory& memory) {
  for (int root = 0; root < group.size(); ++root) {
    const int64_t count = root == 0 ? 0 : 17;
    std::vector<double> own(count, group.rank());
    if (group.rank() == root) own = own_values<double>(group, count);
    Values<double> values(memory, own);
    group.broadcast(values.buffer(), root, memory.stream()).wait_host();
    const auto received = values.read();
    for (int64_t i = 0; i < count; ++i) ASSERT_EQ(received[i], value(root, i));
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

// The buffers of an exchange by such a plan.
class UnevenExchange {
 public:
  UnevenExchange(Communicator& group, TestMemory& memory)
      : group_(group),
        stream_(memory.stream()),
        plan_(group),
        in_(memory, filled(group, plan_)),
        out_(memory, plan_.received, -1.0f) {}

  Work start() {
    return group_.exchange(in_.buffer(), plan_.send, out_.buffer(), plan_.receive, stream_);
  }
  void expect_received() {
    const auto out = out_.read();
    for (const auto& segment : plan_.receive) {
      for (int64_t i = 0; i < segment.count; ++i) {
        ASSERT_EQ(out[segment.offset + i], value(segment.peer, 10 * group_.rank() + i));
      }
    }
  }

 private:
  static std::vector<float> filled(const Communicator& group, const Uneven& plan) {
    std::vector<float> in(plan.sent);
    for (const auto& segment : plan.send) {
      for (int64_t i = 0; i < segment.count; ++i) {
        in[segment.offset + i] = static_cast<float>(value(group.rank(), 10 * segment.peer + i));
      }
    }
    return in;
  }

  Communicator& group_;
  const StreamView stream_;
  const Uneven plan_;
  Values<float> in_, out_;
};

void exchange(Communicator& group, TestMemory& memory) {
  UnevenExchange uneven(group, memory);
  uneven.start().wait_host();
  uneven.expect_received();
  // Nobody sends anything: nothing to agree upon, not even the type.
  group.exchange({}, {}, {}, {}, memory.stream()).wait_host();
}

// Even ranks only send to the next odd one: one-sided buffers, ranks with nothing to do.
void one_sided_exchange(Communicator& group, TestMemory& memory) {
  Values<int64_t> values(memory, 9, group.rank());
  if (group.rank() % 2 == 0 && group.rank() + 1 < group.size()) {
    const Segment to{group.rank() + 1, 2, 7};
    group.exchange(values.buffer(), {&to, 1}, {}, {}, memory.stream()).wait_host();
  } else if (group.rank() % 2 == 1) {
    const Segment from{group.rank() - 1, 1, 7};
    group.exchange({}, {}, values.buffer(), {&from, 1}, memory.stream()).wait_host();
    const auto received = values.read();
    EXPECT_EQ(received.front(), group.rank());
    EXPECT_EQ(received[1], group.rank() - 1);
    EXPECT_EQ(received[7], group.rank() - 1);
    EXPECT_EQ(received.back(), group.rank());
  } else {
    group.exchange({}, {}, {}, {}, memory.stream()).wait_host();
  }
}

void large_exchange(Communicator& group, TestMemory& memory) {
  constexpr int64_t kCount = 300'000;  // beyond what a transport sends without a handshake
  std::vector<float> own(kCount);
  for (int64_t i = 0; i < kCount; ++i) own[i] = static_cast<float>(group.rank() + i % 1000);
  Values<float> in(memory, own), out(memory, kCount, -1.0f);
  const int n = group.size(), next = (group.rank() + 1) % n, last = (group.rank() + n - 1) % n;
  const Segment to{next, 0, kCount}, from{last, 0, kCount};
  group.exchange(in.buffer(), {&to, 1}, out.buffer(), {&from, 1}, memory.stream()).wait_host();
  const auto received = out.read();
  for (int64_t i = 0; i < kCount; ++i) ASSERT_EQ(received[i], last + i % 1000);
}

// Several operations under way, waited for in another order than issued, and in another one on the
// odd ranks. A reduction needs its host to go on while that host waits for something else.
void any_order_of_waits(Communicator& group, TestMemory& memory) {
  Values<double> sums(memory, 50, group.rank()), more(memory, 20, 1.0);
  UnevenExchange uneven(group, memory);
  Work reduced = group.all_reduce(sums.buffer(), ReduceOp::kSum, memory.stream());
  Work moved = uneven.start();
  Work counted = group.all_reduce(more.buffer(), ReduceOp::kSum, memory.stream());
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
  EXPECT_EQ(sums.read()[49], n * (n - 1) / 2);
  EXPECT_EQ(more.read()[19], n);
  uneven.expect_received();
}

// Even ranks wait before they issue the next operation, odd ranks issue both and wait for the
// second first: right as long as the first advances meanwhile.
void waiting_for_the_later_one_first(Communicator& group, TestMemory& memory) {
  Values<double> first(memory, 40, 1.0), second(memory, 3, 2.0);
  Work one = group.all_reduce(first.buffer(), ReduceOp::kSum, memory.stream());
  if (group.rank() % 2 == 0) one.wait_host();
  Work two = group.all_reduce(second.buffer(), ReduceOp::kSum, memory.stream());
  two.wait_host();
  one.wait_host();
  EXPECT_EQ(first.read()[39], group.size());
  EXPECT_EQ(second.read()[0], 2 * group.size());
}

// What the stream does after wait(stream) finds the result; the host has not waited.
void streams_are_ordered_after_operations(Communicator& group, TestMemory& memory) {
  UnevenExchange uneven(group, memory);
  Values<float> sums(memory, 1000, 1.0f);
  Work moved = uneven.start();
  Work reduced = group.all_reduce(sums.buffer(), ReduceOp::kSum, memory.stream());
  reduced.wait(memory.stream());
  Work again = group.all_reduce(sums.buffer(), ReduceOp::kSum, memory.stream());
  again.wait(memory.stream());
  moved.wait(memory.stream());
  EXPECT_EQ(sums.read()[999], group.size() * group.size());
  uneven.expect_received();
}

void dropped_handles(Communicator& group, TestMemory& memory) {
  UnevenExchange uneven(group, memory);
  { const Work dropped = uneven.start(); }
  uneven.expect_received();
  Values<float> sums(memory, 5, 1.0f);
  Work replaced = group.all_reduce(sums.buffer(), ReduceOp::kSum, memory.stream());
  replaced = Work();
  EXPECT_EQ(sums.read()[4], group.size());
  EXPECT_TRUE(replaced.done());
}

void done_without_blocking(Communicator& group, TestMemory& memory) {
  Values<float> values(memory, 11, 1.0f);
  Work work = group.all_reduce(values.buffer(), ReduceOp::kSum, memory.stream());
  while (!work.done()) {
  }
  EXPECT_EQ(values.read()[10], group.size());
  work.wait(memory.stream());
}

void expect_gathered(Communicator& part, TestMemory& memory, int32_t own,
                     const std::function<void(const std::vector<int32_t>&)>& check) {
  Values<int32_t> mine(memory, 1, own), all(memory, part.size(), -1);
  const std::vector<int64_t> ones(part.size(), 1);
  part.all_gather(mine.buffer(), all.buffer(), ones, memory.stream()).wait_host();
  check(all.read());
}

void split_into_alternating_groups(Communicator& group, TestMemory& memory) {
  const auto part = group.split(group.rank() % 2, -group.rank(), "parity");
  const int members = (group.size() + 1 - group.rank() % 2) / 2;
  ASSERT_EQ(part->size(), members);
  ASSERT_EQ(part->rank(), members - 1 - group.rank() / 2) << "keys reverse the order";
  EXPECT_EQ(part->name(), "parity");
  for (int i = 0; i < members; ++i) {
    EXPECT_EQ(part->member_world_ranks()[i],
              group.member_world_ranks()[2 * (members - 1 - i) + group.rank() % 2]);
  }
  expect_gathered(*part, memory, group.rank(), [&](const auto& all) {
    for (int i = 0; i < members; ++i) {
      EXPECT_EQ(all[i], 2 * (members - 1 - i) + group.rank() % 2);
    }
  });
  // Parent and part have operations under way at once.
  Values<float> wide(memory, 3, 1.0f), narrow(memory, 3, 1.0f);
  Work in_parent = group.all_reduce(wide.buffer(), ReduceOp::kSum, memory.stream());
  Work in_part = part->all_reduce(narrow.buffer(), ReduceOp::kSum, memory.stream());
  in_part.wait_host();
  in_parent.wait_host();
  EXPECT_EQ(wide.read()[0], group.size());
  EXPECT_EQ(narrow.read()[0], members);
}

void nested_splits(Communicator& group, TestMemory& memory) {
  auto outer = group.split(group.rank() % 3, 0, "outer");
  auto inner = outer->split(outer->rank() % 2, 0, "inner");
  outer.reset();
  for (const int rank : inner->member_world_ranks()) {
    EXPECT_EQ(rank % 3, group.rank() % 3);
    EXPECT_EQ(rank / 3 % 2, group.rank() / 3 % 2);
  }
  EXPECT_EQ(inner->member_world_ranks()[inner->rank()], group.rank());
  expect_gathered(*inner, memory, group.rank(), [&](const auto& all) {
    for (int i = 0; i < inner->size(); ++i) {
      EXPECT_EQ(all[i] % 3, group.rank() % 3);
      EXPECT_EQ(all[i] / 3 % 2, group.rank() / 3 % 2);
    }
  });
  const auto alone = group.split(group.rank(), 0, "alone");
  EXPECT_EQ(alone->size(), 1);
  alone->barrier();
  expect_gathered(*alone, memory, 7, [](const auto& all) { EXPECT_EQ(all[0], 7); });
  const auto whole = group.split(5, group.rank(), "whole");
  EXPECT_EQ(whole->size(), group.size());
  EXPECT_EQ(whole->rank(), group.rank());
  whole->barrier();
}

void traffic_equals_closed_forms(Communicator& group, TestMemory& memory) {
  const auto own = group.split(0, group.rank(), "counted");
  const int rank = own->rank(), size = own->size();
  const auto counts = uneven_counts(size);
  Values<float> values(memory, 10), whole(memory, sum(counts)), part(memory, counts[rank]),
      square(memory, 3 * size), other(memory, 3 * size);
  const Uneven plan(*own);
  const StreamView stream = memory.stream();
  own->all_reduce(values.buffer(), ReduceOp::kSum, stream).wait_host();
  own->all_gather(part.buffer(), whole.buffer(), counts, stream).wait_host();
  own->reduce_scatter(whole.buffer(), part.buffer(), counts, stream).wait_host();
  own->all_to_all(square.buffer(), other.buffer(), stream).wait_host();
  own->broadcast(values.buffer(), size - 1, stream).wait_host();
  UnevenExchange(*own, memory).start().wait_host();
  own->barrier();
  std::vector<int64_t> sent_to(size);
  const std::vector<std::pair<OpKind, OperationTraffic>> expected{
      {OpKind::kAllReduce, all_reduce_traffic(rank, size, 10, 4, sent_to)},
      {OpKind::kAllGather, all_gather_traffic(rank, counts, 4, sent_to)},
      {OpKind::kReduceScatter, reduce_scatter_traffic(rank, counts, 4, sent_to)},
      {OpKind::kAllToAll, all_to_all_traffic(rank, size, 3, 4, sent_to)},
      {OpKind::kBroadcast, broadcast_traffic(rank, size, size - 1, 10, 4, sent_to)},
      {OpKind::kExchange, exchange_traffic(rank, plan.send, plan.receive, 4, sent_to)},
      {OpKind::kBarrier, {}}};
  const auto records = own->recorder().since(0);
  ASSERT_EQ(records.size(), expected.size());
  int64_t before = 0;
  for (size_t i = 0; i < records.size(); ++i) {
    const auto& record = records[i];
    EXPECT_EQ(record.sequence, static_cast<int64_t>(i));
    EXPECT_EQ(record.op, expected[i].first);
    EXPECT_EQ((OperationTraffic{record.bytes_sent, record.bytes_received, record.messages_sent,
                                record.volume_bytes}),
              expected[i].second)
        << name_of(record.op);
    EXPECT_EQ(record.state, OpState::kCompleted);
    EXPECT_LE(before, record.enqueue_ns);
    EXPECT_LE(record.enqueue_ns, record.start_ns);
    EXPECT_LE(record.start_ns, record.end_ns);
    before = record.end_ns;
  }
  EXPECT_EQ(own->recorder().sent_to(), sent_to);
  EXPECT_EQ(sum(sent_to), own->recorder().totals().bytes_sent);
  EXPECT_EQ(sent_to[rank], 0);
}

}  // namespace

void the_last_peer_is_known(Communicator& group) {
  const int late = group.size() - 1, rank = group.rank();
  const auto measured = group.split(0, rank, "measured");
  const auto prompt = group.split(rank == late, rank, "prompt");
  const std::vector<int64_t> ones(group.size(), 1);
  float own = 1;
  std::vector<float> all(group.size());
  const auto gather = [&] {
    return measured->all_gather(Buffer::of(std::span(&own, 1)), Buffer::of(std::span(all)), ones);
  };
  const auto last = [&] { return measured->recorder().since(0).back(); };
  if (rank == late) {
    group.barrier();
    gather().wait_host();
  } else {
    Work work = gather();
    prompt->barrier();
    EXPECT_FALSE(work.done()) << "one rank has not come";
    group.barrier();
    work.wait_host();
    EXPECT_EQ(last().last_peer, late);
    EXPECT_GT(last().last_alone_ns, 0);
    EXPECT_LE(last().last_alone_ns, last().end_ns - last().start_ns);
  }
  // A root waits for nobody but those that take what it sends, which is small.
  group.barrier();
  measured->broadcast(Buffer::of(std::span(all)), 0).wait_host();
  if (rank > 0) {
    EXPECT_TRUE(last().last_peer == 0 || last().last_peer == -1) << last().last_peer;
  }
  // No messages, no peer.
  const Work nothing =
      measured->all_gather(Buffer::of(std::span(&own, 0)), Buffer::of(std::span(all).first(0)),
                           std::vector<int64_t>(group.size(), 0));
  EXPECT_EQ(last().last_peer, -1);
  EXPECT_EQ(last().last_alone_ns, 0);
}

std::vector<CommunicatorBody> communicator_bodies(TestMemory& memory) {
  const std::pair<const char*, void (*)(Communicator&, TestMemory&)> bodies[] = {
      {"AllReduce", all_reduce},
      {"SumsFollowRankOrder", sums_follow_rank_order},
      {"SumsAreNearAndRepeatable", sums_are_near_and_repeatable},
      {"AllGather", all_gather},
      {"ReduceScatter", reduce_scatter},
      {"AllToAll", all_to_all},
      {"Broadcast", broadcast},
      {"Exchange", exchange},
      {"OneSidedExchange", one_sided_exchange},
      {"LargeExchange", large_exchange},
      {"AnyOrderOfWaits", any_order_of_waits},
      {"WaitingForTheLaterOneFirst", waiting_for_the_later_one_first},
      {"StreamsAreOrderedAfterOperations", streams_are_ordered_after_operations},
      {"DroppedHandles", dropped_handles},
      {"DoneWithoutBlocking", done_without_blocking},
      {"SplitIntoAlternatingGroups", split_into_alternating_groups},
      {"NestedSplits", nested_splits},
      {"TrafficEqualsClosedForms", traffic_equals_closed_forms}};
  std::vector<CommunicatorBody> bound;
  for (const auto& [name, body] : bodies) {
    bound.push_back({name, [body = body, &memory](Communicator& group) { body(group, memory); }});
  }
  return bound;
}

}  // namespace sprocket::comm::testing
