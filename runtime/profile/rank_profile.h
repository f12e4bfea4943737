// What one rank measured over the reported steps, before the ranks' numbers meet.
//
// Times are nanoseconds, sums over the steps. With C the union of a step's compute intervals
// (base/timeline.h) and M the union of its operations in flight [start, end]
// (parallel/comm/recorder.h): exposed = |M minus C|, overlapped = |M and C|.
#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/timeline.h"
#include "parallel/comm/recorder.h"

namespace sprocket::runtime {

// A communicator's part in the mesh; groups of one name differ by their index.
struct GroupId {
  std::string name;  // "sp.outer"
  int index = 0;     // which of the groups of that name
  int size = 1;
  auto operator<=>(const GroupId&) const = default;
  std::string text() const;  // "sp.outer[1]"
};

struct OpKey {
  std::string group;  // name
  comm::OpKind op = comm::OpKind::kBarrier;
  Phase phase = Phase::kOther;
  auto operator<=>(const OpKey&) const = default;
};

struct OpTotals {
  int64_t operations = 0;
  int64_t bytes_sent = 0;
  int64_t messages_sent = 0;
  int64_t duration_ns = 0;
};

// One operation, to be matched with the other members' by (group, sequence).
struct OpTiming {
  int32_t group = 0;  // index into RankProfile::groups
  uint8_t op = 0;
  uint8_t phase = 0;
  int64_t sequence = 0;
  int64_t duration_ns = 0;
};

struct RunningRange {
  int64_t count = 0;
  double sum = 0, min = 0, max = 0;
  void add(double value);
  double mean() const { return count > 0 ? sum / static_cast<double>(count) : 0; }
};

struct LayerShares {
  RunningRange density;
  RunningRange coverage;
};

// Bytes of a rank.
struct MemoryUse {
  int64_t peak = 0;         // runtime/metrics/memory.h
  int64_t tensor_peak = 0;  // on a device, of `peak`: what tensors held; 0 on the processor
  int64_t parameters = 0, gradients = 0, moments = 0;
  // Of the peak: activations, workspaces, and what the allocator keeps for the next ones.
  int64_t rest() const { return peak - parameters - gradients - moments; }
};

struct RankProfile {
  int64_t steps = 0;
  int64_t wall_ns = 0;
  int64_t compute_ns = 0;
  int64_t communication_ns = 0;  // |M|
  int64_t exposed_ns = 0;
  int64_t overlapped_ns = 0;
  int64_t data_wait_ns = 0;
  int64_t tokens = 0;        // of this rank, over the steps
  int64_t lost_records = 0;  // operations that fell out of a recorder's ring unseen
  MemoryUse memory;
  std::map<std::string, int64_t> compute_by_name_ns;
  std::map<OpKey, OpTotals> operations;
  std::vector<LayerShares> layers;
  std::vector<GroupId> groups;
  std::vector<OpTiming> timings;  // the newest ones, at most kMaxTimings

  static constexpr size_t kMaxTimings = 200'000;
};

// For the way to rank 0; unpack_rank_profile(pack(p)) == p. Throws InternalError for other bytes.
std::string pack(const RankProfile& profile);
RankProfile unpack_rank_profile(const std::string& bytes);

}  // namespace sprocket::runtime
