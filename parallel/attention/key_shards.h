// The KV rows that strategies move: the tokens of the outer shards, with their pyramid if a method
// attends to pooled rows (kernels/pyramid.h). Tables and strategies then speak of its segments
// where they speak of blocks.
#pragma once

#include <vector>

#include <ATen/core/Tensor.h>

#include "kernels/pyramid.h"
#include "parallel/attention/outer_strategy.h"

namespace sprocket::parallel {

struct KeyShards {
  kernels::PyramidLayout whole;  // of the whole sequence; its segment ids are the tables'
  kernels::PyramidLayout own;    // of the own blocks, without replicated ones
  OuterShards segments;          // whole.segments() over the ranks, in extended rows
};

// The first `prefix_blocks` are replicated where there are several ranks, as tokens.
KeyShards make_key_shards(const OuterShards& blocks, int prefix_blocks,
                          const std::vector<int>& widths);

// x: own tokens, without replicated ones [B, L, H, D] -> own extended rows; x itself where there is
// no pyramid.
at::Tensor expand_rows(const KeyShards& keys, const at::Tensor& x_BLHD, int threads);
// The gradient of expand_rows, in the accumulator type.
at::Tensor gather_row_gradients(const KeyShards& keys, const at::Tensor& drows, int threads);

}  // namespace sprocket::parallel
