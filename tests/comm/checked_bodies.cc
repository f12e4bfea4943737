#include "tests/comm/checked_bodies.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fmt/format.h>

#include "base/error.h"
#include "parallel/comm/recorder.h"

namespace sprocket::comm::testing {
namespace {

using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::Matcher;
using namespace std::chrono_literals;

constexpr auto kFar = 60s;  // a test that needs it to pass is a failed test
constexpr auto kSoon = 200ms;
constexpr auto kPrompt = 20s;

// With two ranks neither is in the minority: the larger one is named.
int culprit(const Communicator& group) { return group.size() - 1; }
bool is_culprit(const Communicator& group) { return group.rank() == culprit(group); }

void expect_comm_error(const std::function<void()>& body, const Matcher<std::string>& matcher) {
  try {
    body();
    ADD_FAILURE() << "expected a CommError, found none";
  } catch (const CommError& error) {
    EXPECT_THAT(std::string(error.what()), matcher);
  }
}

Matcher<std::string> culprit_calls(const Communicator& group, const std::string& what) {
  return HasSubstr(fmt::format("rank {} calls {}", culprit(group), what));
}

// A collective and what ranks have to agree upon.
struct Call {
  OpKind op = OpKind::kBarrier;
  int64_t count = 6;  // of every rank, or of every pair
  DType dtype = DType::kF32;
  ReduceOp reduction = ReduceOp::kSum;
  int root = 0;
  bool uneven = false;  // one element of rank 1's part belongs to rank 0
};

constexpr OpKind kAll[] = {OpKind::kAllReduce, OpKind::kAllGather, OpKind::kReduceScatter,
                           OpKind::kAllToAll,  OpKind::kBroadcast, OpKind::kExchange,
                           OpKind::kBarrier,   OpKind::kSplit};

bool has_data(OpKind op) { return op != OpKind::kBarrier && op != OpKind::kSplit; }

// Starts the call; buffers live in `memory`.
Work start(Communicator& group, const Call& call, std::vector<std::vector<double>>& memory) {
  const int size = group.size();
  const auto buffer = [&](int64_t count) {
    memory.emplace_back(count);  // of the widest type
    return Buffer{memory.back().data(), count, call.dtype};
  };
  std::vector<int64_t> counts(size, call.count);
  if (call.uneven) ++counts[0], --counts[1];
  const int64_t own = counts[group.rank()], whole = size * call.count;
  switch (call.op) {
    case OpKind::kAllReduce:
      return group.all_reduce(buffer(call.count), call.reduction);
    case OpKind::kAllGather:
      return group.all_gather(buffer(own), buffer(whole), counts);
    case OpKind::kReduceScatter:
      return group.reduce_scatter(buffer(whole), buffer(own), counts);
    case OpKind::kAllToAll:
      return group.all_to_all(buffer(whole), buffer(whole));
    case OpKind::kBroadcast:
      return group.broadcast(buffer(call.count), call.root);
    case OpKind::kExchange: {
      std::vector<Segment> segments;
      for (int peer = 0; peer < size; ++peer) {
        if (peer != group.rank()) segments.push_back({peer, peer * call.count, call.count});
      }
      return group.exchange(buffer(whole), segments, buffer(whole), segments);
    }
    case OpKind::kBarrier:
      group.barrier();
      return {};
    case OpKind::kSplit:
      group.split(0, group.rank(), "part");
      return {};
  }
  throw InternalError("unknown operation");
}

void run(Communicator& group, const Call& call) {
  std::vector<std::vector<double>> memory;
  start(group, call, memory).wait_host();
}

// The culprit makes another call than the others. The second call is where ranks meet the abort
// that need not have been part of the first one.
void expect_divergence(Communicator& group, const Call& others, const Call& culprits,
                       const Matcher<std::string>& matcher) {
  expect_comm_error(
      [&] {
        run(group, is_culprit(group) ? culprits : others);
        group.barrier();
      },
      matcher);
}

// What the front says of a call, up to what differs between operations.
std::string described(const Call& call) {
  if (!has_data(call.op)) return fmt::format("{} seq 0", name_of(call.op));
  return fmt::format("{} seq 0 of ", name_of(call.op));
}

void another_operation(Communicator& group, OpKind op) {
  const Call others{op}, culprits{op == OpKind::kBarrier ? OpKind::kAllReduce : OpKind::kBarrier};
  expect_divergence(group, others, culprits,
                    AllOf(culprit_calls(group, described(culprits)),
                          HasSubstr(fmt::format("among them rank 0, call {}", described(others)))));
}

void another_dtype(Communicator& group, OpKind op) {
  Call others{op}, culprits{op};
  culprits.dtype = DType::kI32;  // of the same size: nothing else would tell
  expect_divergence(
      group, others, culprits,
      AllOf(culprit_calls(group, described(culprits)), HasSubstr(" i32"), HasSubstr(" f32")));
}

void another_count(Communicator& group, OpKind op) {
  Call others{op}, culprits{op};
  culprits.count = 7;
  const Matcher<std::string> of_pairs =
      AnyOf(HasSubstr(fmt::format("peer {} sends 7 elements, expected 6", culprit(group))),
            HasSubstr("sends 6 elements, expected 7"));
  expect_divergence(group, others, culprits,
                    op == OpKind::kExchange ? of_pairs : culprit_calls(group, described(culprits)));
}

// The parts add up to the same number, but in another order.
void other_counts_of_parts(Communicator& group, OpKind op) {
  Call others{op}, culprits{op};
  culprits.uneven = true;
  expect_divergence(group, others, culprits, culprit_calls(group, described(culprits)));
}

void another_root(Communicator& group) {
  Call others{OpKind::kBroadcast}, culprits = others;
  culprits.root = 1;
  expect_divergence(group, others, culprits,
                    AllOf(culprit_calls(group, "broadcast seq 0 of 6 f32, root 1"),
                          HasSubstr("call broadcast seq 0 of 6 f32, root 0")));
}

void another_reduction(Communicator& group) {
  Call others{OpKind::kAllReduce}, culprits = others;
  culprits.reduction = ReduceOp::kMax;
  expect_divergence(group, others, culprits,
                    AllOf(culprit_calls(group, "all_reduce seq 0 of 6 f32, max"),
                          HasSubstr("call all_reduce seq 0 of 6 f32, sum")));
}

// Both are under way before anybody waits: a rank may see of either one that it is another's.
void another_order(Communicator& group) {
  expect_comm_error(
      [&] {
        std::vector<std::vector<double>> memory;
        const Call gather{OpKind::kAllGather}, exchange{OpKind::kExchange};
        Work first = start(group, is_culprit(group) ? exchange : gather, memory);
        Work second = start(group, is_culprit(group) ? gather : exchange, memory);
        first.wait_host();
        second.wait_host();
      },
      AnyOf(AllOf(culprit_calls(group, "exchange seq 0"), HasSubstr("call all_gather seq 0")),
            AllOf(culprit_calls(group, "all_gather seq 1"), HasSubstr("call exchange seq 1"))));
}

// One left out an operation that the others do; it is a whole operation ahead from there.
void an_operation_left_out(Communicator& group) {
  expect_comm_error(
      [&] {
        if (!is_culprit(group)) group.barrier();
        run(group, {OpKind::kAllReduce});
      },
      AllOf(culprit_calls(group, "all_reduce seq 0"), HasSubstr("call barrier seq 0")));
}

// Ranks that send and receive nothing agree with every dtype, and must not hide who does not.
void another_dtype_beside_idle_ranks(Communicator& group) {
  if (group.size() < 3) return another_dtype(group, OpKind::kExchange);
  std::vector<float> values(8);
  expect_comm_error(
      [&] {
        std::vector<Segment> send, receive;
        if (group.rank() == 1) send.push_back({culprit(group), 0, 4});
        if (is_culprit(group)) receive.push_back({1, 4, 4});
        const Buffer buffer{values.data(), 8, is_culprit(group) ? DType::kI32 : DType::kF32};
        group.exchange(buffer, send, buffer, receive).wait_host();
        group.barrier();
      },
      AllOf(culprit_calls(group, "exchange seq 0 of 4 i32"),
            HasSubstr("rank 1, call exchange seq 0 of 4 f32")));
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
      AnyOf(HasSubstr(fmt::format("peer {} sends 0 elements, expected 5", culprit(group))),
            HasSubstr("peer 0 expects 5 elements, this rank sends 0")));
}

// A list for another peer than the one that waits for it, with the same number of elements.
void a_segment_for_another_peer(Communicator& group) {
  if (group.size() < 3) return an_unmatched_segment(group);
  std::vector<float> values(20);
  const Buffer buffer = Buffer::of(std::span<float>(values));
  expect_comm_error(
      [&] {
        std::vector<Segment> send, receive;
        if (is_culprit(group)) send.push_back({1, 0, 5});
        if (group.rank() == 0) receive.push_back({culprit(group), 10, 5});
        group.exchange(buffer, send, buffer, receive).wait_host();
        group.barrier();
      },
      AnyOf(HasSubstr(fmt::format("peer {} sends 0 elements, expected 5", culprit(group))),
            HasSubstr(fmt::format("peer {} sends 5 elements, expected 0", culprit(group))),
            HasSubstr("peer 0 expects 5 elements, this rank sends 0"),
            HasSubstr("peer 1 expects 0 elements, this rank sends 5")));
}

// The group's own deadline is minutes away; the decorator's patience ends first.
void one_does_not_come(Communicator& group, OpKind op) {
  const auto begin = std::chrono::steady_clock::now();
  const auto side = group.split(0, group.rank(), "side");
  group.barrier();
  if (is_culprit(group)) {
    EXPECT_THROW(side->barrier(), CommError);
  } else {
    // More than one may be late on a machine that is busy; the culprit is among them always.
    expect_comm_error([&] { run(group, {op}); },
                      AllOf(HasSubstr(name_of(op)), HasSubstr("seq 2"), HasSubstr("agreement with"),
                            HasSubstr(fmt::format("{}, which", culprit(group)))));
  }
  EXPECT_LT(std::chrono::steady_clock::now() - begin, kPrompt);
}

std::vector<DivergingBody> make_bodies() {
  std::vector<DivergingBody> bodies;
  const auto add = [&](const char* op, const char* what, auto run,
                       std::chrono::milliseconds patience = kFar) {
    bodies.push_back({fmt::format("{}: {}", op, what), std::move(run), patience});
  };
  const auto of = [](auto body, OpKind op) {
    return [body, op](Communicator& group) { body(group, op); };
  };
  for (const OpKind op : kAll) {
    add(name_of(op), "another operation", of(another_operation, op));
    add(name_of(op), "one does not come", of(one_does_not_come, op), kSoon);
    if (!has_data(op)) continue;
    add(name_of(op), "another dtype", of(another_dtype, op));
    add(name_of(op), "another count", of(another_count, op));
  }
  add("all_reduce", "another reduction", another_reduction);
  add("all_gather", "other counts of parts", of(other_counts_of_parts, OpKind::kAllGather));
  add("reduce_scatter", "other counts of parts", of(other_counts_of_parts, OpKind::kReduceScatter));
  add("broadcast", "another root", another_root);
  add("exchange", "an unmatched segment", an_unmatched_segment);
  add("exchange", "a segment for another peer", a_segment_for_another_peer);
  add("exchange", "another dtype beside idle ranks", another_dtype_beside_idle_ranks);
  add("two operations", "another order", another_order);
  add("two operations", "one left out", an_operation_left_out);
  return bodies;
}

}  // namespace

const std::vector<DivergingBody>& diverging_bodies() {
  static const std::vector<DivergingBody> bodies = make_bodies();
  return bodies;
}

}  // namespace sprocket::comm::testing
