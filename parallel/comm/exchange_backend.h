// A backend for host memory that has one primitive, a group of point-to-point messages. Everything
// else is composed of it here, once, so that Thread and Mpi differ in transport only.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "parallel/comm/backend.h"
#include "parallel/comm/split.h"

namespace sprocket::comm {

// One message to or from another rank; bytes > 0.
struct Message {
  int peer;
  char* data;
  size_t bytes;
};

class ExchangeBackend : public Backend {
 public:
  std::string refusal(OpKind op, DType dtype, StreamView stream) const final;

  Pending all_reduce(const Call& call, Buffer inout, ReduceOp op) final;
  Pending all_gather(const Call& call, Buffer in, Buffer out,
                     std::span<const int64_t> counts) final;
  Pending reduce_scatter(const Call& call, Buffer in, Buffer out,
                         std::span<const int64_t> counts) final;
  Pending all_to_all(const Call& call, Buffer in, Buffer out) final;
  Pending broadcast(const Call& call, Buffer inout, int root) final;
  Pending exchange(const Call& call, Buffer send, std::span<const Segment> send_segments,
                   Buffer receive, std::span<const Segment> receive_segments) final;
  Pending barrier(const Call& call) final;
  std::unique_ptr<Backend> split(const Call& call, int colour, int key, const std::string& name,
                                 const Waiter& wait) final;

  // Starts a group of messages, at most one per peer and direction. `channel` is the same on both
  // sides and differs between all groups of messages that are under way: messages never match
  // across channels. Never null.
  virtual Pending transfer(int64_t channel, std::vector<Message> sends,
                           std::vector<Message> receives) = 0;

 protected:
  // Called by all ranks at about the same time.
  virtual std::unique_ptr<Backend> subgroup(const Call& call, int colour, const Part& part,
                                            const std::string& name) = 0;
};

// "rank 3, which …" or "ranks 1, 4, which …": for transports, of the peers whose side is missing.
Operation::Missing missing_ranks(std::vector<int> peers);

}  // namespace sprocket::comm
