// Communication against compute: the ranks' profiles put together, as a table and as profile.json
// (docs/profile.md).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "parallel/mesh.h"
#include "runtime/plan/remote_kv.h"
#include "runtime/profile/rank_profile.h"

namespace sprocket::runtime {

inline constexpr int kProfileSchema = 1;

// Operations of one kind. Per rank and step: means over the ranks. An operation's transfer time is
// the shortest of its members' durations; what a member spent beyond it, it waited for others. This
// needs no common clock.
struct OperationRow {
  OpKey key;
  double operations = 0;
  double bytes_sent = 0;
  double messages = 0;
  double transfer_ms = 0;  // of the operations that could be matched
  double wait_ms = 0;
  double matched = 0;  // share of the operations whose members' records were all at hand
};

struct RankRow {
  int rank = 0;
  double compute_ms = 0;  // per step
  double communication_ms = 0;
  double exposed_ms = 0;
  double wait_ms = 0;  // for other ranks, in matched operations
  double data_wait_ms = 0;
  double bytes_sent = 0;
};

struct LayerRow {
  RunningRange density;  // over ranks, steps and micro-batches
  RunningRange coverage;
};

struct Report {
  parallel::MeshShape mesh;
  int64_t steps = 0;             // reported ones
  double step_seconds = 0;       // mean over ranks
  double tokens_per_second = 0;  // of all ranks
  // Of the step's wall time, all ranks together.
  double compute_share = 0;
  double exposed_share = 0;  // |M minus C| / T
  double data_wait_share = 0;
  double overlap = 0;  // |M and C| / |M|; 0 without communication
  // Slowest rank by compute time, and its time over the mean.
  int slowest_rank = 0;
  double imbalance = 1;
  MemoryUse memory;  // of the rank with the largest peak
  int64_t lost_records = 0;
  std::optional<RemoteKvChoice> remote_kv;  // where the strategy has K and V of others to keep
  std::vector<RankRow> ranks;
  std::vector<OperationRow> operations;  // most bytes first
  std::vector<LayerRow> layers;
  std::vector<std::pair<std::string, double>>
      compute_ms;  // by name, per rank and step, largest first
};

// `profiles` in rank order.
Report make_report(const parallel::MeshShape& mesh, const std::vector<RankProfile>& profiles);

// A verdict in one sentence, then tables.
std::string report_text(const Report& report);

// The artefact, schema kProfileSchema.
std::string report_json(const Report& report);

}  // namespace sprocket::runtime
