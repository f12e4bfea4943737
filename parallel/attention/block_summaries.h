// Summaries of blocks (means, samples) that every outer rank needs of all blocks.
//
// A summary is [B, H, blocks, ...] in the accumulator type, the blocks of a rank or all of them.
// The gathered values are the same bits on every rank.
#pragma once

#include <vector>

#include <ATen/core/Tensor.h>

#include "parallel/attention/outer_strategy.h"

namespace sprocket::parallel {

// Means of the rows of each own block of x: [B, H, own blocks, D].
at::Tensor block_means(const at::Tensor& x_BLHD, const std::vector<int64_t>& offsets, int threads);
// dx of the own rows += dmeans / rows of the block; dx in the accumulator type.
void add_block_mean_gradients(const at::Tensor& dmeans, const std::vector<int64_t>& offsets,
                              const at::Tensor& dx_BLHD, int threads);

// Own blocks' summaries to those of all blocks; all in one all-gather. The tensors agree in all
// extents before the last, and in dtype. Collective over `group`.
std::vector<at::Tensor> gather_blocks(const OuterShards& blocks, comm::Communicator& group,
                                      const std::vector<at::Tensor>& own);

// The gradient of gather_blocks: sums of all ranks' gradients, in rank order, of the own blocks;
// one reduce-scatter. Collective over `group`.
std::vector<at::Tensor> reduce_scatter_blocks(const OuterShards& blocks, comm::Communicator& group,
                                              const std::vector<at::Tensor>& all);

}  // namespace sprocket::parallel
