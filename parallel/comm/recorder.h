// The flight recorder of a communicator: its last operations in a ring buffer.
//
// The closed forms of bytes and messages are in operation_traffic.h; they depend on the operation
// only, not on the backend, so that plans, dry runs and runs can be compared exactly.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "base/timeline.h"

namespace sprocket::comm {

enum class OpKind : uint8_t {
  kAllReduce,
  kAllGather,
  kReduceScatter,
  kAllToAll,
  kBroadcast,
  kExchange,
  kBarrier,
  kSplit
};
const char* name_of(OpKind op);

enum class OpState : uint8_t { kEnqueued, kStarted, kCompleted, kFailed };
const char* name_of(OpState state);

struct OpRecord {
  int64_t sequence = -1;
  OpKind op = OpKind::kBarrier;
  DType dtype = DType::kU8;
  OpState state = OpState::kEnqueued;
  // The member whose messages it waited for at the end, a rank of the group, and for how long they
  // alone were missing (LastPeer, operation.h).
  int32_t last_peer = -1;
  Position position;
  int64_t bytes_sent = 0;  // to other ranks; copies to the own rank are not traffic
  int64_t bytes_received = 0;
  int64_t messages_sent = 0;
  int64_t volume_bytes = 0;   // what busbw divides by time (OperationTraffic)
  int64_t last_alone_ns = 0;  // 0: unknown
  int64_t enqueue_ns = 0;
  int64_t start_ns = 0;  // given to the backend; 0: not yet
  int64_t end_ns = 0;    // completion was observed; 0: not yet
  // Of a completed operation whose backend knows when it took place, both are that.
};

// When an operation took place: nanoseconds of monotonic_ns().
struct OperationSpan {
  int64_t start_ns = 0;
  int64_t end_ns = 0;
};

// Whom an operation waited for at its end. Unknown (-1) where there were no messages, where all had
// come by the first look, where the last ones of several peers were found together, and where the
// backend cannot know (NCCL). Of an operation of two rounds: of the one whose last peer was alone
// for longer.
struct LastPeer {
  int peer = -1;         // a rank of the group
  int64_t alone_ns = 0;  // from when it was seen to be the only one
  bool operator==(const LastPeer&) const = default;
};

// Written by the rank's issuing thread, read by any. A reader never delays the writer: each slot
// carries a version, and a record that changes while it is read is read again.
class Recorder {
 public:
  // Of a group of `ranks` members.
  explicit Recorder(size_t capacity, int ranks = 1);
  ~Recorder();
  Recorder(const Recorder&) = delete;
  Recorder& operator=(const Recorder&) = delete;

  // Returns the slot's ticket for the later updates.
  // sent_to: bytes by member, of which record.bytes_sent is the sum; empty: none.
  uint64_t begin(const OpRecord& record, std::span<const int64_t> sent_to = {});
  // Updates of a record that the ring has meanwhile overwritten are dropped.
  void start(uint64_t ticket, int64_t start_ns);
  // The last peer was alone for at most as long as the operation took.
  void complete(uint64_t ticket, int64_t end_ns, OpState state, const LastPeer& last = {});
  // Completed, as was observed at `observed_ns`, with the times of the backend instead. Those of a
  // device may be off by microseconds: they are kept between enqueue_ns and the observation.
  void complete(uint64_t ticket, const OperationSpan& span, int64_t observed_ns);

  // Records whose sequence is >= first_sequence and still in the ring, oldest first.
  std::vector<OpRecord> since(int64_t first_sequence) const;
  int64_t next_sequence() const;
  // Totals since construction; not limited by the ring.
  struct Totals {
    int64_t bytes_sent = 0, bytes_received = 0, messages_sent = 0, operations = 0;
    bool operator==(const Totals&) const = default;
  };
  Totals totals() const;
  // Bytes sent to each member since construction; they add up to Totals::bytes_sent. 0 for the own
  // rank.
  std::vector<int64_t> sent_to() const;

 private:
  struct Ring;
  std::unique_ptr<Ring> ring_;
};

}  // namespace sprocket::comm
