// Where every token of a sequence is: block order, domains, shards.
//
// A sequence is prefix segments (text, condition, audio; often none) and a video. The latent grid
// (T, H, W) of video tokens is cut into cubes, of which those at the border may be partial, or into
// runs along a curve. Prefix segments are cut into chunks that never cross a segment border. Tokens
// are stored in block order without pads: block i holds rows block_offsets[i] ..
// block_offsets[i+1]-1, prefix blocks first; tokens of a cube are in raster order, those of a run
// in the order of the curve. All this depends on TokenLayoutSpec only, never on the number of
// ranks: block ids, ties and sums are the same on one rank and on many.
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
  kRaster,       // cubes in (t, h, w) order: contiguous ranges are time slabs
  kKd,           // recursive halving: contiguous ranges are compact, boxes or nearly so
  kHilbert,      // tokens along gilbert_curve(), blocks are runs of it; the cube is not used
  kCubeHilbert,  // cubes along gilbert_curve() of the grid of cubes
};

struct TokenLayoutSpec {
  Grid grid;
  Grid cube{4, 4, 4};
  BlockOrder order = BlockOrder::kKd;
  int domains = 1;
  int block_tokens = 128;        // rows of a block of kHilbert; the last one may be shorter
  std::vector<int64_t> prefix;   // tokens of each prefix segment, in order; zeros are legal
  int prefix_block_tokens = 64;  // most rows of a prefix block
  bool operator==(const TokenLayoutSpec&) const = default;
};

struct TokenLayout {
  TokenLayoutSpec spec;
  std::vector<int64_t> block_offsets;  // [blocks + 1] in tokens
  // [tokens] storage order -> place in the input: a video token's raster (t, h, w) index, and
  // grid.tokens() + i for token i of the prefix, which stands after the video there.
  std::vector<int64_t> raster_index;
  // [domains + 1] first block of each domain. Domains partition the video blocks, the prefix
  // belongs to none; some may be empty.
  std::vector<int32_t> domain_blocks;

  int blocks() const { return static_cast<int>(block_offsets.size()) - 1; }
  int64_t tokens() const { return block_offsets.back(); }  // prefix and video
  int prefix_blocks() const { return domain_blocks.front(); }
  int64_t prefix_tokens() const { return block_offsets[prefix_blocks()]; }
  bool is_prefix(int64_t token) const { return token < prefix_tokens(); }
  // The largest number of rows that a block of this spec can have, prefix blocks included.
  int64_t block_capacity() const;
  // (t, h, w) of a video token in storage order; prefix tokens have no position.
  std::array<int32_t, 3> position(int64_t token) const;
};

// Throws ConfigError for extents, block sizes or domains below one and for negative segments.
TokenLayout make_token_layout(const TokenLayoutSpec& spec);

// Who holds what. Outer shards are whole blocks: with several domains, whole domains, the first
// shard holding the prefix blocks as well; with one domain, nearly equal shares of all tokens, of
// which a prefix longer than a share fills more than the first. Inside an outer shard the Ulysses
// ranks hold contiguous token ranges that differ by at most one token. A shard may be empty.
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
