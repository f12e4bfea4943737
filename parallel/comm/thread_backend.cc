#include "parallel/comm/thread_backend.h"

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <map>
#include <mutex>
#include <numeric>
#include <optional>
#include <tuple>
#include <utility>

#include <fmt/format.h>

#include "base/error.h"
#include "parallel/comm/exchange_backend.h"
#include "parallel/comm/missing_peers.h"

namespace sprocket::comm {
namespace {

class Transfer;

// What all groups of one world share. One mutex guards everything below; bytes are copied outside
// it.
struct Hub {
  explicit Hub(int size) : ranks(size) {}

  struct Rank {
    std::condition_variable changed;
    uint64_t generation = 0;
  };
  void notify(int world_rank) {
    ++ranks[world_rank].generation;
    ranks[world_rank].changed.notify_all();
  }

  std::mutex mutex;
  std::vector<Rank> ranks;
};

enum class SideState { kWaiting, kCopying, kDone };

// One end of a message.
struct Side {
  Transfer* owner;
  Message message;
  bool sends;
  SideState state = SideState::kWaiting;
};

struct ThreadGroup {
  std::shared_ptr<Hub> hub;
  std::shared_ptr<ThreadGroup> parent;  // null: the world
  std::string name;
  std::vector<int> world_ranks;

  struct Abort {
    std::string reason;
    int world_rank;
  };
  std::optional<Abort> aborted;
  std::map<std::tuple<int64_t, int, int>, Side*> waiting;  // by channel, sender, receiver

  // The parts of a split that is under way, by sequence number and colour, and how many members
  // have still to take theirs.
  std::map<std::pair<int64_t, int>, std::pair<std::shared_ptr<ThreadGroup>, size_t>> parts;

  void throw_if_aborted() const {
    for (const ThreadGroup* group = this; group; group = group->parent.get()) {
      if (!group->aborted) continue;
      int peer = -1;
      for (size_t r = 0; r < world_ranks.size(); ++r) {
        if (world_ranks[r] == group->aborted->world_rank) peer = static_cast<int>(r);
      }
      throw BackendError(
          fmt::format("aborted by world rank {} through {}: {}", group->aborted->world_rank,
                      group->name, group->aborted->reason),
          peer);
    }
  }
};

class Transfer : public Operation {
 public:
  Transfer(ThreadGroup& group, int rank, int64_t channel, std::vector<Message> sends,
           std::vector<Message> receives)
      : group_(group), hub_(*group.hub), rank_(rank), channel_(channel) {
    for (const auto& message : sends) sides_.push_back({this, message, true});
    for (const auto& message : receives) sides_.push_back({this, message, false});
    unfinished_ = sides_.size();
    post();
  }

  ~Transfer() override {
    std::unique_lock lock(hub_.mutex);
    for (auto& side : sides_) {
      if (side.state == SideState::kWaiting) {
        const auto it = group_.waiting.find(key(side));
        if (it != group_.waiting.end() && it->second == &side) group_.waiting.erase(it);
      }
    }
    // A peer that is copying is at it for the length of one copy.
    hub_.ranks[world_rank()].changed.wait(lock, [&] {
      for (const auto& side : sides_) {
        if (side.state == SideState::kCopying) return false;
      }
      return true;
    });
  }

  bool poll() override {
    const std::lock_guard lock(hub_.mutex);
    seen_ = hub_.ranks[world_rank()].generation;
    if (mismatch_) throw *mismatch_;
    if (unfinished_ == 0) return true;
    group_.throw_if_aborted();
    return false;
  }

  void pause(Clock::time_point until) override {
    std::unique_lock lock(hub_.mutex);
    auto& own = hub_.ranks[world_rank()];
    own.changed.wait_until(lock, until, [&] { return own.generation != seen_; });
  }

  Missing missing() const override {
    const std::lock_guard lock(hub_.mutex);
    std::vector<int> peers;
    for (const auto& side : sides_) {
      if (side.state == SideState::kWaiting) peers.push_back(side.message.peer);
    }
    return missing_ranks(std::move(peers));
  }

  LastPeer last_peer() const override {
    const std::lock_guard lock(hub_.mutex);
    return missing_.last();
  }

 private:
  int world_rank() const { return group_.world_ranks[rank_]; }
  std::tuple<int64_t, int, int> key(const Side& side) const {
    return side.sends ? std::tuple(channel_, rank_, side.message.peer)
                      : std::tuple(channel_, side.message.peer, rank_);
  }

  void post() {
    std::vector<std::pair<Side*, Side*>> matched;
    {
      const std::lock_guard lock(hub_.mutex);
      group_.throw_if_aborted();
      for (auto& side : sides_) {
        const auto it = group_.waiting.find(key(side));
        if (it == group_.waiting.end()) {
          group_.waiting.emplace(key(side), &side);
          missing_.add(side.message.peer);
          continue;
        }
        Side& other = *it->second;
        group_.waiting.erase(it);
        if (side.message.bytes != other.message.bytes) {
          refuse(side, other);
          other.owner->refuse(other, side);
          hub_.notify(other.owner->world_rank());
          continue;
        }
        side.state = other.state = SideState::kCopying;
        matched.emplace_back(&side, &other);
      }
      missing_.begin();
    }
    for (const auto& [side, other] : matched) {
      const Side& from = side->sends ? *side : *other;
      const Side& to = side->sends ? *other : *side;
      std::memcpy(to.message.data, from.message.data, to.message.bytes);
    }
    const std::lock_guard lock(hub_.mutex);
    for (const auto& [side, other] : matched) {
      side->state = other->state = SideState::kDone;
      --unfinished_;
      --other->owner->unfinished_;
      other->owner->missing_.remove(rank_);
      other->owner->missing_.look();
      hub_.notify(other->owner->world_rank());
    }
  }

  void refuse(Side& own, const Side& other) {
    own.state = SideState::kDone;
    const size_t sent = own.sends ? own.message.bytes : other.message.bytes;
    const size_t expected = own.sends ? other.message.bytes : own.message.bytes;
    mismatch_ = own.sends ? BackendError(fmt::format("sent {} bytes to peer {}, which expected {}",
                                                     sent, own.message.peer, expected),
                                         own.message.peer)
                          : BackendError(fmt::format("peer {} sent {} bytes, expected {}",
                                                     own.message.peer, sent, expected),
                                         own.message.peer);
  }

  ThreadGroup& group_;
  Hub& hub_;
  const int rank_;
  const int64_t channel_;
  std::vector<Side> sides_;
  size_t unfinished_ = 0;
  MissingPeers missing_;  // those that had not come when this rank did
  uint64_t seen_ = 0;
  std::optional<BackendError> mismatch_;
};

class ThreadBackend : public ExchangeBackend {
 public:
  ThreadBackend(std::shared_ptr<ThreadGroup> group, int rank)
      : group_(std::move(group)), rank_(rank) {}

  int rank() const override { return rank_; }
  int size() const override { return static_cast<int>(group_->world_ranks.size()); }
  const std::vector<int>& world_ranks() const override { return group_->world_ranks; }

  Pending transfer(int64_t channel, std::vector<Message> sends,
                   std::vector<Message> receives) override {
    return std::make_unique<Transfer>(*group_, rank_, channel, std::move(sends),
                                      std::move(receives));
  }

  void check() override {
    const std::lock_guard lock(group_->hub->mutex);
    group_->throw_if_aborted();
  }

  void abort(const std::string& reason) noexcept override {
    const std::lock_guard lock(group_->hub->mutex);
    if (!group_->aborted) group_->aborted = {reason, group_->world_ranks[rank_]};
    for (const int member : group_->world_ranks) group_->hub->notify(member);
  }

 protected:
  std::unique_ptr<Backend> subgroup(const Call& call, int colour, const Part& own,
                                    const std::string& name) override {
    const std::lock_guard lock(group_->hub->mutex);
    auto [it, first] = group_->parts.try_emplace({call.sequence, colour});
    auto& [part, missing] = it->second;
    if (first) {
      part = std::make_shared<ThreadGroup>();
      part->hub = group_->hub;
      part->parent = group_;
      part->name = name;
      for (const int member : own.members) part->world_ranks.push_back(group_->world_ranks[member]);
      missing = own.members.size();
    }
    const auto taken = part;
    if (--missing == 0) group_->parts.erase(it);
    return std::make_unique<ThreadBackend>(taken, own.rank);
  }

 private:
  const std::shared_ptr<ThreadGroup> group_;
  const int rank_;
};

}  // namespace

std::vector<std::unique_ptr<Backend>> make_thread_backends(int size, const std::string& name) {
  SPROCKET_CHECK(size >= 1, "expected at least one rank, found {}", size);
  const auto group = std::make_shared<ThreadGroup>();
  group->hub = std::make_shared<Hub>(size);
  group->name = name;
  group->world_ranks.resize(size);
  std::iota(group->world_ranks.begin(), group->world_ranks.end(), 0);
  std::vector<std::unique_ptr<Backend>> backends;
  for (int r = 0; r < size; ++r) backends.push_back(std::make_unique<ThreadBackend>(group, r));
  return backends;
}

std::vector<std::unique_ptr<Communicator>> make_thread_world(
    const std::vector<CommunicatorOptions>& options_of_rank) {
  std::vector<std::unique_ptr<Communicator>> world;
  for (auto& backend : make_thread_backends(static_cast<int>(options_of_rank.size()), "world")) {
    const auto& options = options_of_rank[backend->rank()];
    world.push_back(std::make_unique<Communicator>(std::move(backend), "world", options));
  }
  return world;
}

std::vector<std::unique_ptr<Communicator>> make_thread_world(int size,
                                                             const CommunicatorOptions& options) {
  return make_thread_world(std::vector<CommunicatorOptions>(size, options));
}

}  // namespace sprocket::comm
