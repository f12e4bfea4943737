#include "parallel/comm/exchange_backend.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "parallel/comm/missing_peers.h"
#include "parallel/comm/operation_traffic.h"
#include "parallel/comm/rank_ordered_reduction.h"

namespace sprocket::comm {
namespace {

// An operation has at most two groups of messages.
constexpr int64_t kStages = 2;
int64_t channel_of(const Call& call, int stage) { return call.sequence * kStages + stage; }

char* at(const Buffer& buffer, int64_t offset) {
  return static_cast<char*>(buffer.data) + offset * static_cast<int64_t>(size_of(buffer.dtype));
}

// Peers in the order me+1, me+2, … to send to and me-1, me-2, … to receive from, so that not all
// ranks talk to the same one at once.
template <class AddOne>
std::vector<Message> towards(int rank, int size, int direction, AddOne&& message_of) {
  std::vector<Message> messages;
  for (int step = 1; step < size; ++step) {
    const Message message = message_of((rank + direction * step + size) % size);
    if (message.bytes > 0) messages.push_back(message);
  }
  return messages;
}

void copy_own(char* to, const char* from, size_t bytes) {
  if (bytes > 0 && to != from) std::memcpy(to, from, bytes);
}

struct Parts {
  std::vector<int64_t> counts, offsets;
  explicit Parts(std::span<const int64_t> parts)
      : counts(parts.begin(), parts.end()), offsets(parts.size() + 1) {
    std::partial_sum(parts.begin(), parts.end(), offsets.begin() + 1);
  }
};

Pending gather_parts(ExchangeBackend& backend, int64_t channel, const char* own, const Buffer& out,
                     const Parts& parts) {
  const int rank = backend.rank(), size = backend.size();
  const auto element = static_cast<int64_t>(size_of(out.dtype));
  auto sends = towards(rank, size, +1, [&](int peer) -> Message {
    return {peer, const_cast<char*>(own), static_cast<size_t>(parts.counts[rank] * element)};
  });
  auto receives = towards(rank, size, -1, [&](int peer) -> Message {
    return {peer, at(out, parts.offsets[peer]), static_cast<size_t>(parts.counts[peer] * element)};
  });
  if (sends.empty() && receives.empty()) return nullptr;
  return backend.transfer(channel, std::move(sends), std::move(receives));
}

// reduce_scatter; with `gather` set, followed by the all_gather that makes it an all_reduce in
// place.
class Reduction : public Operation {
 public:
  Reduction(ExchangeBackend& backend, const Call& call, Buffer in, char* out, Parts parts,
            ReduceOp op, bool gather)
      : backend_(backend),
        call_(call),
        in_(in),
        out_(out),
        parts_(std::move(parts)),
        op_(op),
        gather_(gather) {
    const int rank = backend.rank(), size = backend.size();
    const auto element = static_cast<int64_t>(size_of(in.dtype));
    const int64_t own_bytes = parts_.counts[rank] * element;
    staging_.resize(own_bytes * (size - 1));
    auto sends = towards(rank, size, +1, [&](int peer) -> Message {
      return {peer, at(in_, parts_.offsets[peer]),
              static_cast<size_t>(parts_.counts[peer] * element)};
    });
    auto receives = towards(rank, size, -1, [&](int peer) -> Message {
      return {peer, staged(peer), static_cast<size_t>(own_bytes)};
    });
    if (!sends.empty() || !receives.empty()) {
      step_ = backend.transfer(channel_of(call, 0), std::move(sends), std::move(receives));
    }
  }

  bool poll() override {
    if (!reduced_) {
      if (step_ && !step_->poll()) return false;
      reduce();
      reduced_ = true;
      if (step_) first_last_ = step_->last_peer();
      step_ = gather_ ? gather_parts(backend_, channel_of(call_, 1), out_, in_, parts_) : nullptr;
    }
    return !step_ || step_->poll();
  }
  void pause(Clock::time_point until) override {
    if (step_) step_->pause(until);
  }
  Missing missing() const override { return step_ ? step_->missing() : Missing{}; }
  LastPeer last_peer() const override {
    return step_ ? longer(first_last_, step_->last_peer()) : first_last_;
  }

 private:
  char* staged(int peer) {
    const int64_t bytes = parts_.counts[backend_.rank()] * static_cast<int64_t>(size_of(in_.dtype));
    return staging_.data() + bytes * (peer < backend_.rank() ? peer : peer - 1);
  }
  void reduce() {
    const int rank = backend_.rank();
    std::vector<const void*> sources;
    for (int peer = 0; peer < backend_.size(); ++peer) {
      sources.push_back(peer == rank ? at(in_, parts_.offsets[rank]) : staged(peer));
    }
    reduce_in_rank_order(in_.dtype, op_, sources, out_, parts_.counts[rank]);
  }

  ExchangeBackend& backend_;
  const Call call_;
  const Buffer in_;
  char* const out_;
  const Parts parts_;
  const ReduceOp op_;
  const bool gather_;
  std::vector<char> staging_;
  Pending step_;  // destroyed before the memory that it fills
  bool reduced_ = false;
  LastPeer first_last_;  // of the reduction
};

}  // namespace

Operation::Missing missing_ranks(std::vector<int> peers) {
  std::sort(peers.begin(), peers.end());
  peers.erase(std::unique(peers.begin(), peers.end()), peers.end());
  if (peers.size() == 1) {
    return {fmt::format("rank {}, which has not come to this operation or has no matching segment",
                        peers[0]),
            peers[0]};
  }
  return {
      fmt::format("ranks {}, which have not come to this operation or have no matching segments",
                  fmt::join(peers, ", ")),
      -1};
}

std::string ExchangeBackend::refusal(OpKind, DType, StreamView stream) const {
  if (stream.is_host()) return "";
  return "expected host memory and the host's stream, found a device stream; device memory needs "
         "the Nccl backend";
}

Pending ExchangeBackend::all_reduce(const Call& call, Buffer inout, ReduceOp op) {
  if (inout.count == 0 || size() == 1) return nullptr;
  Parts parts(near_equal_parts(inout.count, size()));
  char* const own = at(inout, parts.offsets[rank()]);
  return std::make_unique<Reduction>(*this, call, inout, own, std::move(parts), op, true);
}

Pending ExchangeBackend::all_gather(const Call& call, Buffer in, Buffer out,
                                    std::span<const int64_t> counts) {
  const Parts parts(counts);
  const char* own = static_cast<const char*>(in.data);
  copy_own(at(out, parts.offsets[rank()]), own, in.bytes());
  return gather_parts(*this, channel_of(call, 0), own, out, parts);
}

Pending ExchangeBackend::reduce_scatter(const Call& call, Buffer in, Buffer out,
                                        std::span<const int64_t> counts) {
  if (in.count == 0) return nullptr;
  return std::make_unique<Reduction>(*this, call, in, static_cast<char*>(out.data), Parts(counts),
                                     ReduceOp::kSum, false);
}

Pending ExchangeBackend::all_to_all(const Call& call, Buffer in, Buffer out) {
  const int64_t part = in.count / size();
  std::vector<Segment> segments;
  for (int peer = 0; peer < size(); ++peer) segments.push_back({peer, peer * part, part});
  return exchange(call, in, segments, out, segments);
}

Pending ExchangeBackend::broadcast(const Call& call, Buffer inout, int root) {
  std::vector<Segment> sends, receives;
  if (rank() == root) {
    for (int peer = 0; peer < size(); ++peer) {
      if (peer != root) sends.push_back({peer, 0, inout.count});
    }
  } else {
    receives.push_back({root, 0, inout.count});
  }
  return exchange(call, inout, sends, inout, receives);
}

Pending ExchangeBackend::exchange(const Call& call, Buffer send,
                                  std::span<const Segment> send_segments, Buffer receive,
                                  std::span<const Segment> receive_segments) {
  const char* own_source = nullptr;
  const auto messages = [&](const Buffer& buffer, std::span<const Segment> segments,
                            int direction) {
    std::vector<Message> out;
    for (const auto& [peer, offset, count] : segments) {
      if (count == 0 || peer == rank()) continue;
      out.push_back({peer, at(buffer, offset), count * size_of(buffer.dtype)});
    }
    const auto steps = [&](const Message& message) {
      return (direction * (message.peer - rank()) + size()) % size();
    };
    std::sort(out.begin(), out.end(),
              [&](const Message& a, const Message& b) { return steps(a) < steps(b); });
    return out;
  };
  for (const auto& [peer, offset, count] : send_segments) {
    if (peer == rank() && count > 0) own_source = at(send, offset);
  }
  for (const auto& [peer, offset, count] : receive_segments) {
    if (peer == rank()) copy_own(at(receive, offset), own_source, count * size_of(receive.dtype));
  }
  auto sends = messages(send, send_segments, +1);
  auto receives = messages(receive, receive_segments, -1);
  if (sends.empty() && receives.empty()) return nullptr;
  return transfer(channel_of(call, 0), std::move(sends), std::move(receives));
}

Pending ExchangeBackend::barrier(const Call& call) {
  if (size() == 1) return nullptr;
  // What the byte says and where it lands does not matter; it outlives every transfer.
  static char sent_byte;
  struct Barrier : Operation {
    explicit Barrier(int size) : landed(size) {}
    bool poll() override { return transfer->poll(); }
    void pause(Clock::time_point until) override { transfer->pause(until); }
    Missing missing() const override { return transfer->missing(); }
    LastPeer last_peer() const override { return transfer->last_peer(); }
    std::vector<char> landed;
    Pending transfer;
  };
  auto barrier = std::make_unique<Barrier>(size());
  barrier->transfer = transfer(channel_of(call, 0),
                               towards(rank(), size(), +1,
                                       [&](int peer) {
                                         return Message{peer, &sent_byte, 1};
                                       }),
                               towards(rank(), size(), -1, [&](int peer) {
                                 return Message{peer, &barrier->landed[peer], 1};
                               }));
  return barrier;
}

std::unique_ptr<Backend> ExchangeBackend::split(const Call& call, int colour, int key,
                                                const std::string& name, const Waiter& wait) {
  static_assert(sizeof(SplitChoice) == 2 * sizeof(int32_t));
  const std::vector<int64_t> twos(size(), 2);
  SplitChoice own{colour, key};
  std::vector<SplitChoice> all(size());
  if (const Pending gather =
          all_gather(call, {&own, 2, DType::kI32}, {all.data(), 2 * size(), DType::kI32}, twos)) {
    wait(*gather);
  }
  return subgroup(call, colour, part_of(rank(), all), name);
}

}  // namespace sprocket::comm
