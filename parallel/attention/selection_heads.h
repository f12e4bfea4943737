// Selections of some of a rank's heads, without Selection::head_order.
#pragma once

#include <vector>

#include "parallel/sequence_attention.h"

namespace sprocket::parallel {

// Heads [first, first + count). Of an empty selection: an empty one.
Selection heads_of(const Selection& all, int first, int count);
// The heads of all parts, in order.
Selection join_heads(const std::vector<Selection>& parts);

}  // namespace sprocket::parallel
