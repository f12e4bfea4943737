// The flight recorder of a communicator: its last operations in a ring buffer.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "base/timeline.h"

namespace sprocket::comm {

enum class OpKind : uint8_t {
  kAllReduce, kAllGather, kReduceScatter, kAllToAll, kBroadcast, kExchange, kBarrier, kSplit
};
const char* name_of(OpKind op);

enum class OpState : uint8_t { kEnqueued, kStarted, kCompleted, kFailed };

struct OpRecord {
  int64_t sequence = -1;
  OpKind op = OpKind::kBarrier;
  DType dtype = DType::kU8;
  OpState state = OpState::kEnqueued;
  Position position;
  int64_t bytes_sent = 0;      // to other ranks; copies to the own rank are not traffic
  int64_t bytes_received = 0;
  int64_t messages_sent = 0;
  int64_t enqueue_ns = 0;
  int64_t start_ns = 0;
  int64_t end_ns = 0;
};

// Written by the rank's issuing thread, read by any.
class Recorder {
 public:
  explicit Recorder(size_t capacity);
  ~Recorder();
  Recorder(const Recorder&) = delete;

  // Returns the slot's ticket for the later updates.
  uint64_t begin(const OpRecord& record);
  void complete(uint64_t ticket, int64_t end_ns, OpState state);

  // Records whose sequence is >= first_sequence and still in the ring, oldest first.
  std::vector<OpRecord> since(int64_t first_sequence) const;
  int64_t next_sequence() const;
  // Totals since construction; not limited by the ring.
  struct Totals {
    int64_t bytes_sent = 0, bytes_received = 0, messages_sent = 0, operations = 0;
  };
  Totals totals() const;

 private:
  struct Ring;
  Ring* ring_;
};

}  // namespace sprocket::comm
