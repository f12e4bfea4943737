// Where every token of a video is: block order, domains, shards.
//
// The latent grid (T, H, W) of tokens is cut into cubes; border cubes may be partial. Tokens are
// stored in block order without pads: block i holds rows block_offsets[i] .. block_offsets[i+1]-1,
// its tokens in raster order inside the cube. The order depends on the grid, the cube, the order
// name and the number of domains only, never on the number of ranks: block ids, ties and sums are
// the same on one rank and on many.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "parallel/mesh.h"

namespace sprocket::parallel {

struct Grid {
  int t = 0, h = 0, w = 0;
  int64_t tokens() const { return static_cast<int64_t>(t) * h * w; }
  bool operator==(const Grid&) const = default;
};

enum class BlockOrder {
  kRaster,  // cubes in (t, h, w) order: contiguous ranges are time slabs
  kKd,      // recursive halving of the longest axis: contiguous ranges are compact boxes
};

struct TokenLayoutSpec {
  Grid grid;
  Grid cube{4, 4, 4};
  BlockOrder order = BlockOrder::kKd;
  int domains = 1;
  bool operator==(const TokenLayoutSpec&) const = default;
};

struct TokenLayout {
  TokenLayoutSpec spec;
  std::vector<int64_t> block_offsets;  // [blocks + 1] in tokens
  std::vector<int64_t> raster_index;   // [tokens] block order -> raster (t, h, w) index
  std::vector<int32_t>
      domain_blocks;  // [domains + 1] first block of each domain; may be empty ones

  int blocks() const { return static_cast<int>(block_offsets.size()) - 1; }
  int64_t tokens() const { return block_offsets.back(); }
  std::array<int32_t, 3> position(int64_t token) const;  // (t, h, w) of a token in block order
};

TokenLayout make_token_layout(const TokenLayoutSpec& spec);

// Who holds what. Outer shards are whole blocks (and whole domains when there are several); inside
// an outer shard the Ulysses ranks hold contiguous token ranges that differ by at most one token.
// A shard may be empty.
struct ShardPlan {
  MeshShape mesh;                     // data is irrelevant here
  std::vector<int32_t> outer_blocks;  // [outer + 1]
  std::vector<int64_t> outer_tokens;  // [outer + 1]
  std::vector<int64_t> rank_tokens;   // [outer * ulysses + 1] first token of each sequence rank

  int64_t tokens_of(int sequence_rank) const {
    return rank_tokens[sequence_rank + 1] - rank_tokens[sequence_rank];
  }
};

// Throws ConfigError when domains > 1 and outer does not divide it, with the legal degrees.
ShardPlan make_shard_plan(const TokenLayout& layout, const MeshShape& mesh);

}  // namespace sprocket::parallel
