// A selection for plans where none was recorded: local in space and time, with far blocks that
// resemble the query.
//
// The score of key block j for query block i of head h is
//
//   -|x_i - x_j|^2 / (2 width^2) + 2 u_hi . v_hj / sqrt(8)
//
// with x the centres of the blocks in units of a block's edge (the cube root of its tokens) and u,
// v standard normal in 8 dimensions, fixed by the seed. The selection is made from it by
// kernels/coarse_attention.h, with the budget's own rule. docs/plan.md compares the default width
// with a trained model.
#pragma once

#include <cstdint>
#include <optional>

#include "kernels/import_budget.h"
#include "kernels/segment_table.h"
#include "parallel/token_layout.h"

namespace sprocket::runtime {

struct SyntheticSpec {
  double width = 3;
  uint64_t seed = 0;
};

// Every block of every head selects k = max(1, ceil(density blocks)). Of one sample; keys are the
// layout's blocks. The layout has no prefix.
kernels::SegmentTable synthetic_selection(const parallel::TokenLayout& layout, int heads,
                                          const Decimal& density,
                                          const std::optional<kernels::DomainBudget>& budget,
                                          const SyntheticSpec& spec = {});

// The video by itself.
parallel::TokenLayout without_prefix(const parallel::TokenLayout& layout);

// A selection of the video's blocks as one of the whole sequence: the prefix attends to everything,
// and everything to the prefix.
kernels::SegmentTable with_prefix(const kernels::SegmentTable& video, int prefix_blocks);

}  // namespace sprocket::runtime
