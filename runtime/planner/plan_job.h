// `sprocket plan`: from a job and a cluster to tables, without running anything.
#pragma once

#include <string>
#include <vector>

#include "configs/cluster.h"
#include "configs/load.h"
#include "configs/validate.h"
#include "runtime/planner/selection_sources.h"

namespace sprocket::runtime {

struct PlanOptions {
  SelectionOptions selection;
  // A profile.json whose measured rates, links, density and coverage are planned with; empty: none.
  std::string from;
  int top = 12;
  bool all = false;
  std::string csv;  // empty: not written
};

// The text to print. Writes the table as options.csv if that is set. `shape_source` says where the
// shape comes from. Density and coverage of a profile are those of a job with the same attention;
// another job is planned with its own selection. Throws ConfigError, InputError and OutputError.
std::string run_plan(const config::LoadedJob& loaded, const config::LatentShape& shape,
                     const std::string& shape_source, const config::Cluster& cluster,
                     const PlanOptions& options);

}  // namespace sprocket::runtime
