// The ranks' parts of a selection, put together to what one rank would have selected.
#pragma once

#include <vector>

#include "parallel/mesh.h"
#include "parallel/sequence_attention.h"

namespace sprocket::runtime {

// Selections of all layers; of one micro-batch.
using LayerSelections = std::vector<parallel::Selection>;

// own: this rank's selections of its replica. On rank 0 the whole ones of every replica, in order;
// nothing on the others. Collective over mesh.world().
std::vector<LayerSelections> gather_selections(const parallel::Mesh& mesh,
                                               const LayerSelections& own);

// (batch, head, query block) rows that list other segments in one than in the other. The tables are
// of one shape.
int64_t differing_rows(const kernels::SegmentTable& a, const kernels::SegmentTable& b);

}  // namespace sprocket::runtime
