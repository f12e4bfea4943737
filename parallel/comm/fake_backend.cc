#include "parallel/comm/fake_backend.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <optional>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/error.h"
#include "parallel/comm/backend.h"

namespace sprocket::comm {
namespace {

class FakeBackend : public Backend {
 public:
  FakeBackend(int rank, std::vector<int> world_ranks, FakePeers peers)
      : rank_(rank),
        size_(static_cast<int>(world_ranks.size())),
        world_ranks_(std::move(world_ranks)),
        peers_(std::move(peers)) {}

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  const std::vector<int>& world_ranks() const override { return world_ranks_; }

  std::string refusal(OpKind, DType, StreamView stream) const override {
    return stream.is_host() ? "" : "expected host memory, found a device stream";
  }

  Pending all_reduce(const Call&, Buffer, ReduceOp) override { return done(); }

  Pending all_gather(const Call&, Buffer in, Buffer out, std::span<const int64_t> counts) override {
    const Segment own{rank_, offset_of_own(counts), counts[rank_]};
    const Segment all{rank_, 0, in.count};
    // In place, the own part is the only one that must not be zeroed.
    const std::vector<char> kept(bytes(in), bytes(in) + in.bytes());
    zero(out, {0, 0, out.count});
    copy({const_cast<char*>(kept.data()), in.count, in.dtype}, all, out, own);
    return done();
  }

  Pending reduce_scatter(const Call&, Buffer in, Buffer out,
                         std::span<const int64_t> counts) override {
    copy(in, {rank_, offset_of_own(counts), out.count}, out, {rank_, 0, out.count});
    return done();
  }

  Pending all_to_all(const Call&, Buffer in, Buffer out) override {
    const int64_t part = in.count / size_;
    zero(out, {0, 0, out.count});
    const Segment own{rank_, rank_ * part, part};
    copy(in, own, out, own);
    return done();
  }

  Pending broadcast(const Call&, Buffer inout, int root) override {
    if (rank_ != root) zero(inout, {0, 0, inout.count});
    return done();
  }

  Pending exchange(const Call&, Buffer send, std::span<const Segment> send_segments, Buffer receive,
                   std::span<const Segment> receive_segments) override {
    for (const auto& segment : receive_segments) {
      if (segment.peer != rank_) {
        zero(receive, segment);
        continue;
      }
      for (const auto& from : send_segments) {
        if (from.peer == rank_ && from.count > 0) copy(send, from, receive, segment);
      }
    }
    return done();
  }

  Pending barrier(const Call&) override { return done(); }

  std::unique_ptr<Backend> split(const Call&, int colour, int key, const std::string& name,
                                 const Waiter&) override {
    done();
    if (!peers_ && size_ > 1) {
      throw BackendError("a fake group of " + std::to_string(size_) +
                         " ranks can only be split when it was made with the choices of its peers");
    }
    const SplitChoice own{colour, key};
    std::vector<SplitChoice> choices(size_, own);
    for (int r = 0; r < size_; ++r) {
      if (peers_) choices[r] = peers_(name, r);
    }
    if (choices[rank_] != own) {
      throw BackendError(
          fmt::format("split into {}: expected colour {} and key {} of this rank, as given for it, "
                      "found {} and {}",
                      name, choices[rank_].colour, choices[rank_].key, colour, key));
    }
    const Part part = part_of(rank_, choices);
    std::vector<int> world_ranks;
    for (const int member : part.members) world_ranks.push_back(world_ranks_[member]);
    return std::make_unique<FakeBackend>(part.rank, std::move(world_ranks), peers_);
  }

  void check() override { done(); }

  void abort(const std::string& reason) noexcept override {
    if (!aborted_) aborted_ = reason;
  }

 private:
  Pending done() const {
    if (aborted_) throw BackendError("aborted: " + *aborted_, rank_);
    return nullptr;
  }
  int64_t offset_of_own(std::span<const int64_t> counts) const {
    return std::accumulate(counts.begin(), counts.begin() + rank_, int64_t{0});
  }
  static char* bytes(const Buffer& buffer) { return static_cast<char*>(buffer.data); }
  static void zero(const Buffer& buffer, const Segment& segment) {
    const size_t element = size_of(buffer.dtype);
    if (segment.count > 0) {
      std::memset(bytes(buffer) + segment.offset * element, 0, segment.count * element);
    }
  }
  static void copy(const Buffer& from, const Segment& source, const Buffer& to,
                   const Segment& target) {
    const size_t element = size_of(to.dtype);
    if (target.count > 0) {
      std::memmove(bytes(to) + target.offset * element, bytes(from) + source.offset * element,
                   target.count * element);
    }
  }

  const int rank_;
  const int size_;
  const std::vector<int> world_ranks_;
  const FakePeers peers_;
  std::optional<std::string> aborted_;
};

}  // namespace

std::unique_ptr<Communicator> make_fake_world(int rank, int size,
                                              const CommunicatorOptions& options, FakePeers peers) {
  SPROCKET_CHECK(size >= 1 && rank >= 0 && rank < size, "expected a rank in 0..{}, found {}",
                 size - 1, rank);
  std::vector<int> ranks(size);
  std::iota(ranks.begin(), ranks.end(), 0);
  return std::make_unique<Communicator>(
      std::make_unique<FakeBackend>(rank, std::move(ranks), std::move(peers)), "world", options);
}

}  // namespace sprocket::comm
