// What the fine stage multiplies: the measure of work that balance goes by.
#pragma once

#include <cstdint>
#include <vector>

#include "parallel/sequence_attention.h"

namespace sprocket::parallel {

// (query row, key row) pairs that the fine stage computes, by head of the selection, summed over
// the batch: over the rows of segments, so that a mean of several tokens counts as one; pruned
// queries left out, global tokens included. first_block: of the selection's query blocks.
std::vector<int64_t> executed_pairs(const Selection& selection, const TokenLayout& layout,
                                    const AttentionSpec& spec, int first_block);

}  // namespace sprocket::parallel
