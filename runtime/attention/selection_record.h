// What a method selected, as the bytes of `sprocket attention`'s files (docs/attention_command.md),
// and back. Blocks are in block order: prefix blocks first, then the video's.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "parallel/mesh.h"
#include "parallel/sequence_attention.h"

namespace sprocket::runtime {

// Where a rank's part of a selection lies.
struct SelectionPart {
  int64_t batch = 0, heads = 0;  // of the input
  std::vector<int> own;          // heads of the Ulysses rank, in its order
  int64_t first_block = 0, own_blocks = 0;
  int64_t first_token = 0, own_tokens = 0;  // of the outer rank, in block order

  int64_t own_heads() const { return std::ssize(own); }
  int64_t selection_bytes(int64_t blocks) const {
    return batch * own_heads() * own_blocks * blocks;
  }
  int64_t kept_bytes() const { return batch * own_heads() * own_tokens; }
};
// head_order: parallel::Selection's.
SelectionPart selection_part(const parallel::ShardPlan& plan, int rank, int64_t batch,
                             int64_t heads, std::span<const int> head_order = {});

// [batch, own heads, own blocks, N]: 0 for skipped, else 1; with a pyramid, the level from 1 on.
std::vector<uint8_t> selection_bytes(const parallel::Selection& selection,
                                     const parallel::TokenLayout& layout,
                                     const parallel::AttentionSpec& spec);
// [batch, own heads, own tokens] in block order; empty where nothing is ever pruned.
std::vector<uint8_t> kept_bytes(const parallel::Selection& selection);

// A selection of all heads and blocks.
struct SelectionRecord {
  int64_t batch = 0, heads = 0, blocks = 0;
  std::vector<uint8_t> selection;  // [B, H, N, N]
  std::vector<uint8_t> kept;       // [B, H, L] in the input's order; empty: every query attends

  std::span<const uint8_t> head(int64_t b, int64_t h) const {
    return std::span(selection).subspan((b * heads + h) * blocks * blocks, blocks * blocks);
  }
};

// The ranks' parts, behind one another in rank order, as one record.
SelectionRecord join_parts(const parallel::TokenLayout& layout,
                           std::span<const SelectionPart> parts,
                           std::span<const uint8_t> selections, std::span<const uint8_t> kept);

// Block of every input token, and tokens of every block: how a reader finds its way in a record.
std::vector<int32_t> token_blocks(const parallel::TokenLayout& layout);
std::vector<int32_t> block_sizes(const parallel::TokenLayout& layout);

}  // namespace sprocket::runtime
