// The same operations on all members of their groups, found by their sequence numbers: no common
// clock is needed.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "runtime/profile/event_file.h"

namespace sprocket::profile {

// One rank's step and what its numbers mean. The pointers are to its reader's.
struct RankStep {
  int rank = 0;
  const events::Header* header = nullptr;
  const NameTable* names = nullptr;
  RecordedStep step;
};

// A communicator of the job: what its members call by the same name and index.
struct GroupKey {
  std::string name;
  int index = 0;
  auto operator<=>(const GroupKey&) const = default;
};

struct OperationMember {
  int rank = 0;       // of the world
  int rank_step = 0;  // index of the RankStep
  const RecordedOperation* operation = nullptr;
};

struct MatchedOperation {
  const GroupKey* group = nullptr;
  int group_size = 0;
  std::vector<OperationMember> members;  // completed, by rank
  bool matched = false;                  // all members of the group that have records are there
  // Of a matched one:
  int64_t transfer_ns = 0;  // the shortest duration
  int64_t longest_ns = 0;
  int late = 0;              // index of the member that has it: it came last
  int64_t volume_bytes = 0;  // the most of any member
  const RecordedOperation& operation() const { return *members.front().operation; }
  int64_t wait_ns(const OperationMember& member) const {
    return member.operation->duration_ns() - transfer_ns;
  }
};

// Keys of all groups that were seen, stable in memory.
class GroupTable {
 public:
  // Of `header`'s groups, which are `present` in the job's records.
  struct Entry {
    GroupKey key;
    int size = 0;     // members
    int present = 0;  // of them, with records
  };
  explicit GroupTable(std::span<const events::Header* const> headers);
  const Entry& of(const events::Header& header, int group) const;
  int number_of(const events::Header& header, int group) const;
  const Entry& operator[](int number) const { return entries_[number]; }

 private:
  std::vector<Entry> entries_;
  std::map<GroupKey, int> numbers_;
  std::map<const events::Header*, std::vector<int>> by_header_;
};

// In order of group and sequence.
std::vector<MatchedOperation> match_operations(const GroupTable& groups,
                                               std::span<const RankStep> ranks);

// busbw: bytes of an operation x the factor, by what it is and the size of its group.
double busbw_factor(comm::OpKind op, int size);

}  // namespace sprocket::profile
