#include "runtime/profile/operation_matching.h"

#include <algorithm>
#include <tuple>

namespace sprocket::profile {

GroupTable::GroupTable(std::span<const events::Header* const> headers) {
  std::map<GroupKey, Entry> found;
  for (const events::Header* header : headers) {
    for (const events::Group& group : header->groups()) {
      const GroupKey key{group.name(), group.index()};
      Entry& entry = found[key];
      entry.key = key;
      entry.size = group.members_size();
      ++entry.present;
    }
  }
  for (const auto& [key, entry] : found) {
    numbers_[key] = static_cast<int>(entries_.size());
    entries_.push_back(entry);
  }
  for (const events::Header* header : headers) {
    std::vector<int>& numbers = by_header_[header];
    for (const events::Group& group : header->groups()) {
      numbers.push_back(numbers_.at({group.name(), group.index()}));
    }
  }
}

int GroupTable::number_of(const events::Header& header, int group) const {
  return by_header_.at(&header).at(group);
}

const GroupTable::Entry& GroupTable::of(const events::Header& header, int group) const {
  return entries_[number_of(header, group)];
}

std::vector<MatchedOperation> match_operations(const GroupTable& groups,
                                               std::span<const RankStep> ranks) {
  struct Found {
    int group;
    int64_t sequence;
    OperationMember member;
  };
  std::vector<Found> found;
  for (size_t r = 0; r < ranks.size(); ++r) {
    for (const RecordedOperation& op : ranks[r].step.operations) {
      if (!op.completed()) continue;
      found.push_back({groups.number_of(*ranks[r].header, op.group),
                       op.sequence,
                       {ranks[r].rank, static_cast<int>(r), &op}});
    }
  }
  std::sort(found.begin(), found.end(), [](const Found& a, const Found& b) {
    return std::tie(a.group, a.sequence, a.member.rank) <
           std::tie(b.group, b.sequence, b.member.rank);
  });
  std::vector<MatchedOperation> matched;
  for (size_t begin = 0, end = 0; begin < found.size(); begin = end) {
    const GroupTable::Entry& group = groups[found[begin].group];
    MatchedOperation operation;
    operation.group = &group.key;
    operation.group_size = group.size;
    while (end < found.size() && found[end].group == found[begin].group &&
           found[end].sequence == found[begin].sequence) {
      operation.members.push_back(found[end++].member);
    }
    const auto& members = operation.members;
    operation.matched = std::ssize(members) == group.present && group.present > 1;
    for (size_t m = 0; m < members.size(); ++m) {
      const int64_t duration = members[m].operation->duration_ns();
      if (m == 0 || duration < operation.transfer_ns) {
        operation.transfer_ns = duration;
        operation.late = static_cast<int>(m);
      }
      operation.longest_ns = std::max(operation.longest_ns, duration);
      operation.volume_bytes = std::max(operation.volume_bytes, members[m].operation->volume_bytes);
    }
    matched.push_back(std::move(operation));
  }
  return matched;
}

double busbw_factor(comm::OpKind op, int size) {
  const double n = size;
  switch (op) {
    case comm::OpKind::kAllReduce:
      return 2 * (n - 1) / n;
    case comm::OpKind::kAllGather:
    case comm::OpKind::kReduceScatter:
    case comm::OpKind::kAllToAll:
      return (n - 1) / n;
    case comm::OpKind::kBroadcast:
    case comm::OpKind::kExchange:
    case comm::OpKind::kBarrier:
    case comm::OpKind::kSplit:
      return 1;
  }
  return 1;
}

}  // namespace sprocket::profile
