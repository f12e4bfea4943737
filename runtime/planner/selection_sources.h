// Where a plan's selection comes from.
#pragma once

#include <optional>
#include <string>

#include "configs/job.pb.h"
#include "runtime/plan/layer_planner.h"
#include "runtime/plan/synthetic_selection.h"

namespace sprocket::runtime {

struct SelectionOptions {
  std::string file;                // of `sprocket attention --dump-selection`; empty: none
  std::optional<double> density;   // in (0, 1]
  std::optional<double> coverage;  // in [0, 1]; needs density
  SyntheticSpec synthetic;
};

// In this order: the file; the two figures; for DENSE everything; for SLIDING_TILE its windows;
// else a synthetic selection of the density given or of the method's own at `step`, under the job's
// budget; a text in the sequence attends to everything and is attended to. Throws InputError when
// the file is not of this job's blocks and heads, ConfigError for figures out of range.
SelectionSource selection_source(const config::Job& job, const parallel::TokenLayout& layout,
                                 int64_t step, const SelectionOptions& options);

// Throws ConfigError unless 0 < density <= 1 and 0 <= coverage <= 1.
void check_figures(double density, double coverage);

// The density that the method's options state at a step, to plan with where no selection is known.
// VSA: 1 - sparsity; BSA by value: 1 - sparsity; PSA with quotas: of full blocks, else 0.2, ASA:
// max_keep, for which the thresholds give no figure without data.
Decimal stated_density(const parallel::AttentionSpec& spec);

}  // namespace sprocket::runtime
