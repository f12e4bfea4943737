// The tokens of each block that sampled block scores (PSA, ASA) look at.
//
// Which ones is a function of (seed, step, layer, head, block) alone, so that every rank draws the
// same for whatever blocks and heads it holds.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/segment_attention.h"

namespace sprocket::kernels {

struct SampleKey {
  uint64_t seed = 0;
  uint64_t step = 0;  // of training or of the sampler; its low 24 bits count
  int layer = 0;
};

struct BlockSamples {
  int heads = 0;
  int blocks = 0;
  int samples = 0;              // m, slots per block: the same for every block and call
  std::vector<int32_t> counts;  // [blocks] slots in use, the first ones: min(m, tokens)
  // [heads, blocks, m] row of the token, from the call's first token; ascending in a block; -1 in
  // unused slots.
  std::vector<int32_t> rows;
};

// Draws for blocks [first_block, first_block + blocks) of a sequence whose blocks start at
// `block_offsets` (all of them, + the end). per_block: distinct tokens to draw without replacement;
// a block that has no more takes them all. 0: all tokens of every block, nothing is random. heads:
// numbers of the call's heads in the model, below 4096.
BlockSamples sample_blocks(std::span<const int64_t> block_offsets, int first_block, int blocks,
                           std::span<const int> heads, int per_block, const SampleKey& key);

// out: [batch, heads, blocks, m, head_dim] contiguous; unused slots are 0. x: the call's tokens.
template <class T>
void gather_samples(HeadView<const T> x, const BlockSamples& samples, int batch, int head_dim,
                    Accumulator<T>* out, int threads);

}  // namespace sprocket::kernels
