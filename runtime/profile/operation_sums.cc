#include "runtime/profile/operation_sums.h"

#include <algorithm>

namespace sprocket::profile {
namespace {

double ms(int64_t ns) { return 1e-6 * static_cast<double>(ns); }

// How much later than `member` its last peer came, which has an operation so much shorter; 0 where
// the peer is unknown. Where everyone waits for everyone that peer is the late member. In a ring or
// a selected exchange it need not be: the shortest operation may be of one that has nothing to do
// with it.
struct LastPeer {
  const OperationMember* peer = nullptr;
  int64_t late_ns = 0;
};
LastPeer last_peer(const MatchedOperation& operation, const OperationMember& member) {
  for (const OperationMember& peer : operation.members) {
    if (peer.rank != member.operation->last_peer) continue;
    return {&peer,
            std::max<int64_t>(0, member.operation->duration_ns() - peer.operation->duration_ns())};
  }
  return {};
}

// Had the rank that a member waited for been in time, the operation's last so many nanoseconds
// would not have been: from `from_last` to `to_last` before its end.
Span delay(const OperationMember& member, int64_t from_last, int64_t to_last = 0) {
  const int64_t end = member.operation->end_ns;
  return {end - from_last, end - to_last};
}

// Who held up whom in a step, when: by the ranks' indices, on the clock of the one that waited.
class Delays {
 public:
  explicit Delays(std::span<const IntervalSet> compute) : compute_(compute) {}

  int64_t exposed(const OperationMember& member, Span span) const {
    return span.end - span.begin - compute_[member.rank_step].length_within(span);
  }
  void late(const OperationMember& member, const OperationMember& by, Span span) {
    keep(late_, member, by, span);
    keep(all_, member, by, span);
  }
  void last(const OperationMember& member, const OperationMember& by, Span span) {
    keep(all_, member, by, span);
  }
  void sum_up(std::span<RankSums> rank_sums) {
    sum_up(all_, &RankSums::held_up_ns, rank_sums);
    sum_up(late_, &RankSums::late_ns, rank_sums);
  }

 private:
  struct Delay {
    int by, of;  // RankStep indices: who is waited for, who waits
    Span span;
  };
  // A flat list, sorted once: ten million operations pass through here.
  static void keep(std::vector<Delay>& delays, const OperationMember& of, const OperationMember& by,
                   Span span) {
    if (span.begin < span.end) delays.push_back({by.rank_step, of.rank_step, span});
  }
  // Operations may be in flight at once: a moment counts once.
  void sum_up(std::vector<Delay>& delays, int64_t RankSums::*sum, std::span<RankSums> rank_sums) {
    const auto ranks = [](const Delay& delay) { return std::pair(delay.by, delay.of); };
    std::ranges::sort(delays, {}, ranks);
    for (auto first = delays.begin(); first != delays.end();) {
      const auto last = std::ranges::upper_bound(first, delays.end(), ranks(*first), {}, ranks);
      std::vector<Span> spans;
      for (const Delay& delay : std::ranges::subrange(first, last)) spans.push_back(delay.span);
      rank_sums[first->by].*sum +=
          subtract(IntervalSet(std::move(spans)), compute_[first->of]).length();
      first = last;
    }
  }

  std::span<const IntervalSet> compute_;
  std::vector<Delay> late_, all_;
};

void blame_late_ranks(const MatchedOperation& operation, std::span<RankSums> rank_sums,
                      Delays& delays) {
  const OperationMember& late = operation.members[operation.late];
  for (const OperationMember& member : operation.members) {
    const LastPeer last = last_peer(operation, member);
    const int64_t wait = operation.wait_ns(member);
    if (last.peer) {
      rank_sums[last.peer->rank_step].caused_wait_ns += last.late_ns;
      delays.late(member, *last.peer, delay(member, last.late_ns));
    }
    rank_sums[late.rank_step].caused_wait_ns += wait - last.late_ns;
    delays.late(member, late, delay(member, wait, last.late_ns));
  }
}

// That members waited for messages of one peer alone for longer than it was late: what is slow is
// the way to it.
void blame_links(const MatchedOperation& operation, std::span<RankSums> rank_sums, Delays& delays) {
  struct Longest {
    int64_t last_ns = 0, link_ns = 0;
  };
  std::map<int, Longest> by_rank_step;
  for (const OperationMember& member : operation.members) {
    const LastPeer last = last_peer(operation, member);
    if (!last.peer) continue;
    const int64_t last_ns = member.operation->last_alone_ns;
    delays.last(member, *last.peer, delay(member, last_ns));
    Longest& longest = by_rank_step[last.peer->rank_step];
    const int64_t link_ns = std::max<int64_t>(0, last_ns - last.late_ns);
    longest.last_ns = std::max(longest.last_ns, delays.exposed(member, delay(member, last_ns)));
    longest.link_ns = std::max(longest.link_ns, delays.exposed(member, delay(member, link_ns)));
  }
  for (const auto& [rank_step, longest] : by_rank_step) {
    rank_sums[rank_step].last_ns += longest.last_ns;
    rank_sums[rank_step].link_ns += longest.link_ns;
  }
}

}  // namespace

void OperationTable::keep_if_slow(const MatchedOperation& operation, int64_t step) {
  const double longest = ms(operation.longest_ns);
  if (slowest_.size() == kSlowest && slowest_.back().ms >= longest) return;
  const RecordedOperation& op = operation.operation();
  const SlowOperation slow{operation.group->name,
                           operation.group->index,
                           op.sequence,
                           comm::name_of(op.op),
                           name_of(op.phase),
                           op.layer,
                           step,
                           longest,
                           ms(operation.transfer_ns),
                           operation.members[operation.late].rank};
  const auto place =
      std::find_if(slowest_.begin(), slowest_.end(),
                   [longest](const SlowOperation& other) { return other.ms < longest; });
  slowest_.insert(place, slow);
  if (slowest_.size() > kSlowest) slowest_.pop_back();
}

void OperationTable::add(std::span<const RankStep> ranks, std::span<const IntervalSet> compute,
                         std::span<const MatchedOperation> operations,
                         std::span<RankSums> rank_sums) {
  Delays delays(compute);
  for (const MatchedOperation& operation : operations) {
    const RecordedOperation& first = operation.operation();
    OperationSums& sums = sums_[{operation.group->name, first.op, first.phase}];
    for (const OperationMember& member : operation.members) {
      ++sums.calls;
      sums.sent_bytes += member.operation->sent_bytes;
      sums.messages += member.operation->messages;
    }
    if (!operation.matched) continue;
    for (const OperationMember& member : operation.members) {
      const int64_t wait = operation.wait_ns(member);
      RankSums& own = rank_sums[member.rank_step];
      ++sums.matched_calls;
      sums.transfer_ns += operation.transfer_ns;
      sums.wait_ns += wait;
      sums.bus_bytes += static_cast<double>(operation.volume_bytes) *
                        busbw_factor(first.op, operation.group_size);
      own.wait_ns += wait;
      const int layer = member.operation->layer;
      if (layer >= 0 && layer < std::ssize(own.layers)) own.layers[layer].wait_ns += wait;
    }
    blame_late_ranks(operation, rank_sums, delays);
    blame_links(operation, rank_sums, delays);
    keep_if_slow(operation, ranks[operation.members.front().rank_step].step.step);
  }
  delays.sum_up(rank_sums);
  // Operations that did not complete are calls as well.
  for (const RankStep& rank : ranks) {
    for (const RecordedOperation& op : rank.step.operations) {
      if (op.completed()) continue;
      OperationSums& sums = sums_[{rank.header->groups(op.group).name(), op.op, op.phase}];
      ++sums.calls;
      sums.sent_bytes += op.sent_bytes;
      sums.messages += op.messages;
    }
  }
}

}  // namespace sprocket::profile
