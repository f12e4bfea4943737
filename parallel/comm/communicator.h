// The typed front of all communicators.
//
// A Communicator is one group of ranks. Every rank of the group calls the same operations in the
// same order. The front checks sizes, types, ranks and segment bounds once for all backends,
// numbers the operations, and records them; a backend only moves bytes.
//
// Buffers: offsets and counts are in elements of the buffer's dtype, never in bytes. A buffer must
// stay alive and untouched until the operation's Work has completed.
// Reductions are summed in rank order, bf16 and f16 in fp32: the same bits on every run and rank.
// Errors: InternalError for wrong arguments, CommError for time-outs, aborts and dead peers.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "base/dtype.h"
#include "base/stream.h"
#include "base/timeline.h"

namespace sprocket::comm {

class Backend;
class Group;
class Recorder;

enum class ReduceOp : uint8_t { kSum, kMax, kMin };

// `count` elements at `offset` of a buffer, sent to or received from `peer` (may be the own rank).
struct Segment {
  int peer;
  int64_t offset;
  int64_t count;
  bool operator==(const Segment&) const = default;
};

struct Buffer {
  void* data = nullptr;
  int64_t count = 0;
  DType dtype = DType::kU8;

  template <class T>
  static Buffer of(std::span<T> values) {
    return {const_cast<std::remove_const_t<T>*>(values.data()), static_cast<int64_t>(values.size()),
            kDTypeOf<std::remove_const_t<T>>};
  }
  size_t bytes() const { return static_cast<size_t>(count) * size_of(dtype); }
};

// A started operation. Move-only; used by the rank's issuing thread. Destroying an unfinished Work
// is safe: completion is then awaited, or the group aborted when the deadline passes; while an
// exception unwinds the group is aborted at once. After wait(stream) on a device, dropping it does
// not block. Waiting for one operation also advances all others of the same family of communicators
// (those split from one another), so operations may be waited for in any order.
class Work {
 public:
  class Impl;
  Work();  // already complete
  explicit Work(std::unique_ptr<Impl> impl);
  Work(Work&&) noexcept;
  Work& operator=(Work&&) noexcept;
  ~Work();

  // Never blocks. True also after a failure, which wait() and wait_host() then throw.
  bool done();
  // Orders `stream` after the operation and returns at once; on the host it is wait_host().
  void wait(StreamView stream);
  // Polls completion and the group's asynchronous error together, for at most the group's timeout.
  // Throws CommError; whatever fails also aborts the group, so that the peers hear of it.
  void wait_host();

 private:
  std::unique_ptr<Impl> impl_;
};

// Shared by all communicators of a rank.
struct CommunicatorOptions {
  std::chrono::milliseconds timeout{std::chrono::minutes(10)};  // of every single wait
  size_t recorded_operations = 4096;
  Timeline* timeline = nullptr;  // read for positions, told about waits; may be null
};

class Communicator {
 public:
  // `name` appears in errors and reports: "world", "sp", "sp.outer", "sp.ulysses", "dp".
  Communicator(std::unique_ptr<Backend> backend, std::string name, CommunicatorOptions options);
  // Aborts the group when an exception is unwinding.
  ~Communicator();
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  int rank() const;
  int size() const;
  const std::string& name() const;
  const CommunicatorOptions& options() const;
  // The members, by rank: their ranks in the world that this group was split from, by whatever many
  // splits; 0, 1, 2, … of a world.
  const std::vector<int>& member_world_ranks() const;

  // In place.
  [[nodiscard]] Work all_reduce(Buffer inout, ReduceOp op, StreamView stream = StreamView::host());
  // Rank r contributes counts[r] elements; out holds them in rank order. in.count == counts[rank].
  // `in` may be the own part of `out`.
  [[nodiscard]] Work all_gather(Buffer in, Buffer out, std::span<const int64_t> counts,
                                StreamView stream = StreamView::host());
  // in holds sum(counts) elements in rank order; out (counts[rank]) receives the sum of own parts.
  // `out` may be the own part of `in`.
  [[nodiscard]] Work reduce_scatter(Buffer in, Buffer out, std::span<const int64_t> counts,
                                    StreamView stream = StreamView::host());
  // Equal parts: both buffers hold size() * part elements, part r for / from rank r.
  [[nodiscard]] Work all_to_all(Buffer in, Buffer out, StreamView stream = StreamView::host());
  [[nodiscard]] Work broadcast(Buffer inout, int root, StreamView stream = StreamView::host());
  // The general operation: every segment with count > 0 is one message, at most one per peer and
  // direction; the own rank's segments are copied. Both sides must agree on counts. A segment with
  // count 0 moves nothing and need not be matched. What is received overlaps nothing else.
  [[nodiscard]] Work exchange(Buffer send, std::span<const Segment> send_segments, Buffer receive,
                              std::span<const Segment> receive_segments,
                              StreamView stream = StreamView::host());
  void barrier();
  // Advances all unfinished operations of this family of communicators; never blocks. For a rank
  // that computes for long while messages travel: some transports move only while they are called.
  void progress() noexcept;
  // Collective. Ranks with the same colour (>= 0) form a group, ordered by (key, rank). The new
  // group has its own recorder and sequence numbers; aborting this group aborts it too, not the
  // reverse.
  std::unique_ptr<Communicator> split(int colour, int key, std::string name);
  // Throws CommError when the group was aborted, by whichever rank, when its transport has failed,
  // or when an operation that only a device stream waits for has passed the timeout. Does not
  // block: for ranks that wait for something other than an operation, a device stream for example.
  void check();
  // Makes every pending and later operation of the group fail with CommError on all ranks.
  void abort(const std::string& reason) noexcept;

  // The last operations, newest last; safe to call from another thread.
  const Recorder& recorder() const;

 private:
  std::shared_ptr<Group> group_;
  int uncaught_at_birth_;

  explicit Communicator(std::shared_ptr<Group> group);
};

}  // namespace sprocket::comm
