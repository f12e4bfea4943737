#include "parallel/comm/recorder.h"

#include <gtest/gtest.h>

#include <thread>
#include <utility>

#include "parallel/comm/missing_peers.h"

namespace sprocket::comm {
namespace {

// Every field follows from the sequence number, so that a torn record shows.
OpRecord record_of(int64_t sequence) {
  OpRecord record;
  record.sequence = sequence;
  record.op = static_cast<OpKind>(sequence % 8);
  record.dtype = static_cast<DType>(sequence % 8);
  record.position = {sequence * 3, static_cast<Phase>(sequence % 6),
                     static_cast<int16_t>(sequence % 100)};
  record.bytes_sent = sequence * 5;
  record.bytes_received = sequence * 7;
  record.messages_sent = sequence % 4;
  record.volume_bytes = sequence * 17;
  record.enqueue_ns = sequence * 11;
  return record;
}

bool consistent(const OpRecord& record) {
  const OpRecord expected = record_of(record.sequence);
  const bool open = record.end_ns == 0;
  return record.op == expected.op && record.dtype == expected.dtype &&
         record.position.step == expected.position.step &&
         record.position.phase == expected.position.phase &&
         record.position.layer == expected.position.layer &&
         record.bytes_sent == expected.bytes_sent &&
         record.bytes_received == expected.bytes_received &&
         record.messages_sent == expected.messages_sent &&
         record.volume_bytes == expected.volume_bytes &&
         record.last_alone_ns == (open ? 0 : record.sequence) &&
         record.enqueue_ns == expected.enqueue_ns &&
         (open ? record.state != OpState::kCompleted
               : record.end_ns == record.sequence * 13 && record.state == OpState::kCompleted);
}

TEST(Recorder, KeepsWhatItWasTold) {
  Recorder recorder(4);
  EXPECT_EQ(recorder.next_sequence(), 0);
  EXPECT_TRUE(recorder.since(0).empty());
  const uint64_t ticket = recorder.begin(record_of(0));
  EXPECT_EQ(recorder.since(0).front().state, OpState::kEnqueued);
  recorder.start(ticket, 17);
  EXPECT_EQ(recorder.since(0).front().state, OpState::kStarted);
  EXPECT_EQ(recorder.since(0).front().start_ns, 17);
  recorder.complete(ticket, 19, OpState::kFailed);
  EXPECT_EQ(recorder.since(0).front().state, OpState::kFailed);
  EXPECT_EQ(recorder.since(0).front().end_ns, 19);
  EXPECT_EQ(recorder.next_sequence(), 1);
}

TEST(Recorder, TakesTheTimesOfABackendsOwnClock) {
  Recorder recorder(2);
  const auto completed = [&](const OperationSpan& span) {
    OpRecord record = record_of(recorder.next_sequence());
    record.enqueue_ns = 100;
    const uint64_t ticket = recorder.begin(record);
    recorder.start(ticket, 110);
    recorder.complete(ticket, span, 200);
    record = recorder.since(record.sequence).front();
    EXPECT_EQ(record.state, OpState::kCompleted);
    return std::pair(record.start_ns, record.end_ns);
  };
  EXPECT_EQ(completed({120, 170}), std::pair(int64_t{120}, int64_t{170}));
  // The other clock is off: nothing begins before it was asked for, or ends after it was seen to.
  EXPECT_EQ(completed({90, 170}), std::pair(int64_t{100}, int64_t{170}));
  EXPECT_EQ(completed({150, 201}), std::pair(int64_t{150}, int64_t{200}));
  EXPECT_EQ(completed({90, 99}), std::pair(int64_t{100}, int64_t{100}));
  EXPECT_EQ(completed({201, 202}), std::pair(int64_t{200}, int64_t{200}));

  const uint64_t overwritten = recorder.begin(record_of(5));
  recorder.begin(record_of(6));
  recorder.begin(record_of(7));
  recorder.complete(overwritten, {1, 2}, 3);
  for (const auto& record : recorder.since(0)) EXPECT_EQ(record.state, OpState::kEnqueued);
}

TEST(Recorder, KnowsTheLastPeerOfACompletedOperation) {
  Recorder recorder(2);
  const uint64_t ticket = recorder.begin(record_of(0));
  EXPECT_EQ(recorder.since(0).front().last_peer, -1);
  recorder.complete(ticket, 19, OpState::kCompleted, {3, 7});
  EXPECT_EQ(recorder.since(0).front().last_peer, 3);
  EXPECT_EQ(recorder.since(0).front().last_alone_ns, 7);
}

TEST(Recorder, CountsBytesByMember) {
  Recorder recorder(1, 3);
  EXPECT_EQ(recorder.sent_to(), (std::vector<int64_t>{0, 0, 0}));
  recorder.begin(record_of(0), std::vector<int64_t>{5, 0, 2});
  recorder.begin(record_of(1));
  recorder.begin(record_of(2), std::vector<int64_t>{1, 0, 40});
  EXPECT_EQ(recorder.sent_to(), (std::vector<int64_t>{6, 0, 42}));
}

TEST(MissingPeers, TheLastOneIsWhoeverIsLeftAlone) {
  MissingPeers missing;
  for (const int peer : {2, 4, 3, 4}) missing.add(peer);  // 4 sends and receives
  missing.begin();
  missing.remove(2);
  missing.look();
  missing.remove(3);
  missing.look();
  missing.remove(4);
  missing.look();
  EXPECT_EQ(missing.last(), LastPeer{}) << "not yet";
  missing.remove(4);
  missing.look();
  EXPECT_EQ(missing.last().peer, 4);
  EXPECT_GE(missing.last().alone_ns, 0);
}

TEST(MissingPeers, OfTwoThatAreSeenTogetherNoneIsTheLast) {
  MissingPeers missing;
  for (const int peer : {0, 2, 1}) missing.add(peer);  // 1 is their mean
  missing.begin();
  missing.remove(1);
  missing.look();
  missing.remove(0);
  missing.remove(2);
  missing.look();
  EXPECT_EQ(missing.last(), LastPeer{});
}

TEST(MissingPeers, AnOnlyPeerIsAloneFromTheBeginning) {
  MissingPeers missing;
  missing.add(0);
  missing.begin();
  missing.remove(0);
  missing.look();
  EXPECT_EQ(missing.last().peer, 0);
  MissingPeers nobody;
  nobody.begin();
  EXPECT_EQ(nobody.last(), LastPeer{});
}

TEST(MissingPeers, OfTwoRoundsTheLongerWaitCounts) {
  EXPECT_EQ(longer({}, {2, 5}), (LastPeer{2, 5}));
  EXPECT_EQ(longer({1, 9}, {2, 5}), (LastPeer{1, 9}));
  EXPECT_EQ(longer({1, 4}, {2, 5}), (LastPeer{2, 5}));
  EXPECT_EQ(longer({1, 4}, {}), (LastPeer{1, 4}));
}

TEST(Recorder, WrapsAroundAndKeepsTotals) {
  Recorder recorder(4);
  std::vector<uint64_t> tickets;
  Recorder::Totals totals;
  for (int64_t s = 0; s < 11; ++s) {
    const OpRecord record = record_of(s);
    tickets.push_back(recorder.begin(record));
    totals.bytes_sent += record.bytes_sent;
    totals.bytes_received += record.bytes_received;
    totals.messages_sent += record.messages_sent;
    ++totals.operations;
  }
  EXPECT_EQ(recorder.totals(), totals);
  EXPECT_EQ(recorder.next_sequence(), 11);

  const auto kept = recorder.since(0);
  ASSERT_EQ(kept.size(), 4u);
  for (int64_t i = 0; i < 4; ++i) EXPECT_EQ(kept[i].sequence, 7 + i);
  ASSERT_EQ(recorder.since(9).size(), 2u);
  EXPECT_EQ(recorder.since(9).front().sequence, 9);
  EXPECT_TRUE(recorder.since(11).empty());

  // An update that comes after its slot was taken by another operation touches nothing.
  recorder.complete(tickets[3], 99, OpState::kFailed);
  recorder.start(tickets[3], 99);
  EXPECT_EQ(recorder.since(0).size(), 4u);
  for (const auto& record : recorder.since(0)) {
    EXPECT_EQ(record.state, OpState::kEnqueued);
    EXPECT_EQ(record.start_ns, 0);
  }
}

TEST(Recorder, IsReadWhileItIsWritten) {
  Recorder recorder(8);
  const std::jthread writer([&](const std::stop_token& stop) {
    for (int64_t s = 0; !stop.stop_requested(); ++s) {
      const uint64_t ticket = recorder.begin(record_of(s));
      recorder.start(ticket, s * 12);
      recorder.complete(ticket, s * 13, OpState::kCompleted, {static_cast<int>(s % 5), s * 19});
    }
  });
  int64_t seen = 0, last = -1;
  for (int rounds = 0; rounds < 2000;) {
    int64_t before = -1;
    for (const auto& record : recorder.since(0)) {
      ASSERT_TRUE(record.sequence == 0 || consistent(record)) << record.sequence;
      ASSERT_TRUE(before < 0 || record.sequence == before + 1) << "a gap";
      before = record.sequence;
      ++seen;
    }
    if (before < 0) continue;  // the writer has not begun, or went once around meanwhile
    ASSERT_LE(last, before);
    last = before;
    ++rounds;
  }
  EXPECT_GT(seen, 0);
}

}  // namespace
}  // namespace sprocket::comm
