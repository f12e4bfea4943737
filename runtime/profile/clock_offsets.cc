#include "runtime/profile/clock_offsets.h"

#include <algorithm>
#include <map>
#include <optional>

namespace sprocket::profile {
namespace {

int64_t median(std::vector<int64_t>& values) {
  const auto middle = values.begin() + static_cast<int64_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace

std::vector<int64_t> clock_offsets(std::span<const RankStep> ranks,
                                   std::span<const MatchedOperation> operations) {
  // Ends of a rank less those of the first member of their group.
  std::map<std::pair<int, int>, std::vector<int64_t>> differences;
  for (const MatchedOperation& operation : operations) {
    if (!operation.matched) continue;
    const OperationMember& first = operation.members.front();
    for (const OperationMember& member : operation.members) {
      if (member.rank_step == first.rank_step) continue;
      differences[{first.rank_step, member.rank_step}].push_back(member.operation->end_ns -
                                                                 first.operation->end_ns);
    }
  }
  std::vector<std::optional<int64_t>> known(ranks.size());
  std::vector<std::vector<std::pair<int, int64_t>>> neighbours(ranks.size());
  for (auto& [pair, values] : differences) {
    const int64_t difference = median(values);
    neighbours[pair.first].emplace_back(pair.second, difference);
    neighbours[pair.second].emplace_back(pair.first, -difference);
  }
  std::vector<int> reached;
  if (!ranks.empty()) {
    known[0] = 0;
    reached.push_back(0);
  }
  for (size_t next = 0; next < reached.size(); ++next) {
    const int from = reached[next];
    for (const auto& [to, difference] : neighbours[from]) {
      if (known[to]) continue;
      known[to] = *known[from] + difference;
      reached.push_back(to);
    }
  }
  std::vector<int64_t> offsets(ranks.size());
  for (size_t r = 0; r < ranks.size(); ++r) {
    offsets[r] = known[r].value_or(ranks[r].step.begin_ns - ranks.front().step.begin_ns);
  }
  return offsets;
}

}  // namespace sprocket::profile
