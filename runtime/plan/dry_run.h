// What a job would do, computed from its description: --dry-run of `sprocket train` and `distill`.
#pragma once

#include <string>
#include <vector>

#include "configs/load.h"
#include "configs/validate.h"
#include "parallel/traffic.h"

namespace sprocket::runtime {

// What a sequence rank sends in one layer and micro-batch, in closed form (parallel/traffic.h). For
// the selected strategy the K and V rows are an upper bound, the budget's: the selection depends on
// data.
struct RankTraffic {
  std::vector<parallel::TrafficRow> rows;
  int64_t bytes(Phase phase) const;
  int64_t messages(Phase phase) const;
};

// One entry per sequence rank, with the attention of `step`.
std::vector<RankTraffic> layer_traffic(const config::Job& job, const config::LatentShape& shape,
                                       int64_t step);

// The resolved job, the mesh with every rank's coordinate and shard, bytes and messages per layer
// and memory per rank, as text. `loaded` was loaded with a world. `shape_source` says where the
// shape comes from. Throws ConfigError when the job cannot run on the shape.
std::string dry_run_report(const config::LoadedJob& loaded, const config::LatentShape& shape,
                           const std::string& shape_source);

// The same of `sprocket distill --dry-run`: the student's mesh, a line for each network, and the
// memory of all three. `loaded` has a distillation.
std::string distillation_dry_run_report(const config::LoadedJob& loaded,
                                        const config::LatentShape& shape,
                                        const std::string& shape_source);

}  // namespace sprocket::runtime
