// What a backend implements: moving bytes. Arguments have been checked by the front
// (communicator.h), which also numbers and records the operations and waits for them.
//
// A null Operation means: complete. Buffers live until the operation has completed or was
// destroyed; spans only until the call returns. Errors are thrown as BackendError.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "parallel/comm/communicator.h"
#include "parallel/comm/operation.h"
#include "parallel/comm/recorder.h"

namespace sprocket::comm {

// One operation of a group: the same on all of its ranks.
struct Call {
  OpKind op;
  int64_t sequence;
  StreamView stream;
};

using Pending = std::unique_ptr<Operation>;

class Backend {
 public:
  virtual ~Backend() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;
  // The members, by rank: their ranks in the world that the group was split from, by whatever many
  // splits.
  virtual const std::vector<int>& world_ranks() const = 0;

  // Why this backend cannot take such a buffer; empty when it can.
  virtual std::string refusal(OpKind op, DType dtype, StreamView stream) const = 0;

  virtual Pending all_reduce(const Call& call, Buffer inout, ReduceOp op) = 0;
  virtual Pending all_gather(const Call& call, Buffer in, Buffer out,
                             std::span<const int64_t> counts) = 0;
  virtual Pending reduce_scatter(const Call& call, Buffer in, Buffer out,
                                 std::span<const int64_t> counts) = 0;
  virtual Pending all_to_all(const Call& call, Buffer in, Buffer out) = 0;
  virtual Pending broadcast(const Call& call, Buffer inout, int root) = 0;
  virtual Pending exchange(const Call& call, Buffer send, std::span<const Segment> send_segments,
                           Buffer receive, std::span<const Segment> receive_segments) = 0;
  virtual Pending barrier(const Call& call) = 0;
  // Blocks, through `wait`, until all ranks have called.
  virtual std::unique_ptr<Backend> split(const Call& call, int colour, int key,
                                         const std::string& name, const Waiter& wait) = 0;
  // Throws when the group was aborted, by whomever, or has failed outside any operation.
  virtual void check() = 0;
  // Idempotent; the first reason stays.
  virtual void abort(const std::string& reason) noexcept = 0;
};

}  // namespace sprocket::comm
