#include <algorithm>
#include <cstdlib>
#include <numeric>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "parallel/exchange_plan.h"
#include "parallel/gilbert_curve.h"
#include "parallel/token_layout.h"

namespace sprocket::parallel {
namespace {

const std::vector<TokenLayoutSpec> kSpecs{
    {{21, 30, 52}, {4, 4, 4}, BlockOrder::kKd, 8},
    {{5, 9, 6}, {4, 4, 4}, BlockOrder::kKd, 3},
    {{5, 9, 6}, {4, 4, 4}, BlockOrder::kRaster, 5},
    {{1, 1, 1}, {4, 4, 4}, BlockOrder::kKd, 4},
    {{8, 8, 8}, {2, 4, 8}, BlockOrder::kRaster, 1},
    {{3, 5, 4}, {4, 4, 4}, BlockOrder::kKd, 16},
    {{21, 30, 52}, {4, 4, 4}, BlockOrder::kCubeHilbert, 8},
    {{1, 30, 52}, {4, 4, 4}, BlockOrder::kCubeHilbert, 3},
    {{13, 7, 11}, {2, 3, 4}, BlockOrder::kCubeHilbert, 5},
};

const std::vector<BlockOrder> kOrders{BlockOrder::kRaster, BlockOrder::kKd, BlockOrder::kHilbert,
                                      BlockOrder::kCubeHilbert};
const std::vector<Grid> kGrids{{21, 30, 52}, {1, 30, 52}, {13, 17, 19}, {1, 1, 1},  {1, 1, 300},
                               {1, 257, 1},  {101, 1, 1}, {7, 1, 23},   {31, 2, 3}, {5, 9, 6},
                               {2, 2, 2},    {9, 9, 9},   {11, 10, 13}};

TokenLayoutSpec with_prefix(TokenLayoutSpec spec, std::vector<int64_t> prefix,
                            int prefix_block_tokens = 64) {
  spec.prefix = std::move(prefix);
  spec.prefix_block_tokens = prefix_block_tokens;
  return spec;
}

// Every order and a prefix that is absent, empty or longer than the video.
std::vector<TokenLayoutSpec> all_kinds() {
  std::vector<TokenLayoutSpec> specs = kSpecs;
  for (BlockOrder order : kOrders) {
    for (int domains : {1, 3, 8}) {
      for (const auto& prefix :
           std::vector<std::vector<int64_t>>{{}, {0, 0}, {130, 0, 64, 1}, {500, 1000}}) {
        specs.push_back(with_prefix({{5, 9, 11}, {4, 4, 4}, order, domains}, prefix, 48));
      }
    }
  }
  return specs;
}

TEST(TokenLayout, EveryTokenOnceAndEveryBlockIsOneCube) {
  for (const auto& spec : kSpecs) {
    const TokenLayout layout = make_token_layout(spec);
    ASSERT_EQ(layout.tokens(), spec.grid.tokens());
    EXPECT_EQ(std::set<int64_t>(layout.raster_index.begin(), layout.raster_index.end()).size(),
              static_cast<size_t>(spec.grid.tokens()));
    for (int block = 0; block < layout.blocks(); ++block) {
      ASSERT_LT(layout.block_offsets[block], layout.block_offsets[block + 1]);
      const auto first = layout.position(layout.block_offsets[block]);
      int64_t previous = -1;
      for (int64_t token = layout.block_offsets[block]; token < layout.block_offsets[block + 1];
           ++token) {
        const auto at = layout.position(token);
        EXPECT_EQ(at[0] / spec.cube.t, first[0] / spec.cube.t);
        EXPECT_EQ(at[1] / spec.cube.h, first[1] / spec.cube.h);
        EXPECT_EQ(at[2] / spec.cube.w, first[2] / spec.cube.w);
        EXPECT_LT(previous, layout.raster_index[token]);
        previous = layout.raster_index[token];
      }
    }
  }
}

TEST(TokenLayout, EveryOrderIsAPermutationOfAnyGrid) {
  for (const Grid& grid : kGrids) {
    for (BlockOrder order : kOrders) {
      for (int domains : {1, 7}) {
        const TokenLayout layout =
            make_token_layout(with_prefix({grid, {4, 4, 4}, order, domains}, {70, 0, 3}));
        std::vector<int64_t> sorted = layout.raster_index, all(grid.tokens() + 73);
        std::sort(sorted.begin(), sorted.end());
        std::iota(all.begin(), all.end(), 0);
        ASSERT_EQ(sorted, all) << grid.t << "x" << grid.h << "x" << grid.w;
        ASSERT_EQ(layout.block_offsets.front(), 0);
        ASSERT_EQ(layout.block_offsets.back(), layout.tokens());
        for (int block = 0; block < layout.blocks(); ++block) {
          const int64_t rows = layout.block_offsets[block + 1] - layout.block_offsets[block];
          ASSERT_GT(rows, 0);
          ASSERT_LE(rows, layout.block_capacity());
        }
        for (int64_t token = layout.prefix_tokens(); token < layout.tokens(); ++token) {
          const auto [t, h, w] = layout.position(token);
          ASSERT_EQ((static_cast<int64_t>(t) * grid.h + h) * grid.w + w,
                    layout.raster_index[token]);
        }
      }
    }
  }
}

TEST(TokenLayout, HilbertBlocksAreRunsOfTheCurve) {
  for (const Grid& grid : kGrids) {
    for (int block_tokens : {1, 64, 128}) {
      TokenLayoutSpec spec{grid, {0, 0, 0}, BlockOrder::kHilbert, 5};
      spec.block_tokens = block_tokens;
      const TokenLayout layout = make_token_layout(spec);
      const auto curve = gilbert_curve({grid.t, grid.h, grid.w});
      ASSERT_EQ(layout.tokens(), static_cast<int64_t>(curve.size()));
      for (int64_t token = 0; token < layout.tokens(); ++token) {
        ASSERT_EQ(layout.position(token), curve[token]);
      }
      ASSERT_EQ(layout.blocks(), (grid.tokens() + block_tokens - 1) / block_tokens);
      for (int block = 0; block < layout.blocks(); ++block) {
        ASSERT_EQ(layout.block_offsets[block], static_cast<int64_t>(block) * block_tokens);
      }
      EXPECT_EQ(layout.block_capacity(), block_tokens);
    }
  }
}

TEST(TokenLayout, CubeHilbertVisitsCubesAlongTheCurveOfTheirGrid) {
  const TokenLayout layout =
      make_token_layout({{21, 30, 52}, {4, 4, 4}, BlockOrder::kCubeHilbert, 8});
  const auto curve = gilbert_curve({6, 8, 13});
  ASSERT_EQ(layout.blocks(), static_cast<int>(curve.size()));
  for (int block = 0; block < layout.blocks(); ++block) {
    const auto [t, h, w] = layout.position(layout.block_offsets[block]);
    ASSERT_EQ((std::array<int32_t, 3>{t / 4, h / 4, w / 4}), curve[block]);
  }
  for (int g = 0; g < 8; ++g) {
    const int64_t tokens = layout.block_offsets[layout.domain_blocks[g + 1]] -
                           layout.block_offsets[layout.domain_blocks[g]];
    EXPECT_LE(std::abs(tokens - 4095), 64) << "a share is 21 * 30 * 52 / 8 tokens";
  }
}

TEST(TokenLayout, PrefixBlocksComeFirstAndNeverCrossASegment) {
  const TokenLayout layout =
      make_token_layout(with_prefix({{5, 9, 6}, {4, 4, 4}, BlockOrder::kKd, 3}, {130, 0, 64, 1}));
  EXPECT_EQ(layout.prefix_blocks(), 5);
  EXPECT_EQ(layout.prefix_tokens(), 195);
  EXPECT_EQ(layout.tokens(), 270 + 195);
  EXPECT_THAT(std::vector<int64_t>(layout.block_offsets.begin(), layout.block_offsets.begin() + 6),
              ::testing::ElementsAre(0, 64, 128, 130, 194, 195));
  for (int64_t token = 0; token < layout.tokens(); ++token) {
    EXPECT_EQ(layout.is_prefix(token), token < 195);
    if (token < 195) {
      EXPECT_EQ(layout.raster_index[token], 270 + token);
    }
  }
  EXPECT_THROW(layout.position(194), InternalError);
  EXPECT_THAT(layout.position(195), ::testing::ElementsAre(0, 0, 0));
}

TEST(TokenLayout, PrefixOnlyShiftsTheVideo) {
  for (const auto& spec : all_kinds()) {
    TokenLayoutSpec plain = spec;
    plain.prefix.clear();
    const TokenLayout layout = make_token_layout(spec), video = make_token_layout(plain);
    const int64_t tokens = std::accumulate(spec.prefix.begin(), spec.prefix.end(), int64_t{0});
    const int blocks = layout.prefix_blocks();
    EXPECT_EQ(video.prefix_blocks(), 0);
    EXPECT_EQ(video.prefix_tokens(), 0);
    EXPECT_FALSE(video.is_prefix(0));
    ASSERT_EQ(layout.prefix_tokens(), tokens);
    ASSERT_EQ(layout.blocks(), video.blocks() + blocks);
    EXPECT_EQ(std::vector<int64_t>(layout.raster_index.begin() + tokens, layout.raster_index.end()),
              video.raster_index);
    for (int block = 0; block <= video.blocks(); ++block) {
      EXPECT_EQ(layout.block_offsets[blocks + block], video.block_offsets[block] + tokens);
    }
    for (int g = 0; g <= spec.domains; ++g) {
      EXPECT_EQ(layout.domain_blocks[g], video.domain_blocks[g] + blocks);
    }
  }
}

TEST(TokenLayout, BlockCapacityIsTheLargestOfBothKinds) {
  const auto capacity = [](BlockOrder order, std::vector<int64_t> prefix, int prefix_block) {
    TokenLayoutSpec spec{{5, 9, 6}, {4, 4, 3}, order, 1};
    spec.block_tokens = 40;
    return make_token_layout(with_prefix(spec, std::move(prefix), prefix_block)).block_capacity();
  };
  EXPECT_EQ(capacity(BlockOrder::kKd, {}, 64), 48);
  EXPECT_EQ(capacity(BlockOrder::kKd, {0, 0}, 64), 48);
  EXPECT_EQ(capacity(BlockOrder::kKd, {1}, 64), 64);
  EXPECT_EQ(capacity(BlockOrder::kCubeHilbert, {1}, 16), 48);
  EXPECT_EQ(capacity(BlockOrder::kHilbert, {1}, 16), 40);
  EXPECT_EQ(capacity(BlockOrder::kHilbert, {1}, 41), 41);
}

TEST(TokenLayout, RefusesWhatIsNoLayout) {
  const auto message = [](const TokenLayoutSpec& spec) -> std::string {
    try {
      make_token_layout(spec);
    } catch (const ConfigError& error) {
      return error.what();
    }
    return "accepted";
  };
  EXPECT_EQ(message({{0, 8, 8}, {0, 0, 0}, BlockOrder::kHilbert, 1}),
            "token layout: expected positive extents, found grid 0x8x8, cube 0x0x0, domains 1");
  EXPECT_EQ(message({{8, 8, 8}, {4, 0, 4}, BlockOrder::kCubeHilbert, 1}),
            "token layout: expected positive extents, found grid 8x8x8, cube 4x0x4, domains 1");
  TokenLayoutSpec spec{{8, 8, 8}, {4, 4, 4}, BlockOrder::kHilbert, 1};
  spec.block_tokens = 0;
  EXPECT_EQ(message(spec),
            "token layout: expected at least one token in a block, found 0 in a block of the "
            "video and 64 in a block of the prefix");
  spec.block_tokens = 128;
  EXPECT_EQ(message(with_prefix(spec, {3}, 0)),
            "token layout: expected at least one token in a block, found 128 in a block of the "
            "video and 0 in a block of the prefix");
  EXPECT_EQ(message(with_prefix(spec, {3, -1})),
            "token layout: expected a length of zero or more, found -1 in prefix segment 1 of 2");
}

TEST(TokenLayout, DomainsAreOrderedRangesThatCoverAllVideoBlocks) {
  for (const auto& spec : all_kinds()) {
    const TokenLayout layout = make_token_layout(spec);
    ASSERT_EQ(layout.domain_blocks.size(), static_cast<size_t>(spec.domains) + 1);
    EXPECT_EQ(layout.domain_blocks.front(), layout.prefix_blocks());
    EXPECT_EQ(layout.domain_blocks.back(), layout.blocks());
    EXPECT_TRUE(std::is_sorted(layout.domain_blocks.begin(), layout.domain_blocks.end()));
  }
}

// Whole planes of cubes divide 21 x 30 x 52 tokens into eighths of up to 1.31 of their share.
TEST(TokenLayout, DomainsHaveEqualTokensWithinABlock) {
  for (const BlockOrder order : kOrders) {
    for (const Grid& grid : {Grid{7, 30, 52}, Grid{21, 30, 52}, Grid{13, 15, 26}}) {
      for (int domains : {2, 3, 4, 8}) {
        const TokenLayout layout = make_token_layout({grid, {4, 4, 4}, order, domains});
        const double share = static_cast<double>(grid.tokens()) / domains;
        for (int g = 0; g < domains; ++g) {
          const int64_t tokens = layout.block_offsets[layout.domain_blocks[g + 1]] -
                                 layout.block_offsets[layout.domain_blocks[g]];
          EXPECT_NEAR(static_cast<double>(tokens), share,
                      static_cast<double>(layout.block_capacity()))
              << "domain " << g << " of " << domains << ", order " << static_cast<int>(order);
        }
      }
    }
  }
}

// A cut leaves one plane of cubes in parts at most, so a domain is a box but for a plane a cut.
TEST(TokenLayout, KdDomainsAreNearlyBoxes) {
  const TokenLayout layout = make_token_layout({{32, 32, 64}, {4, 4, 4}, BlockOrder::kKd, 8});
  const TokenLayout partial = make_token_layout({{21, 30, 52}, {4, 4, 4}, BlockOrder::kKd, 8});
  const auto box = [](const TokenLayout& of, int g) {
    std::set<int> t, h, w;
    for (int block = of.domain_blocks[g]; block < of.domain_blocks[g + 1]; ++block) {
      const auto at = of.position(of.block_offsets[block]);
      t.insert(at[0] / 4), h.insert(at[1] / 4), w.insert(at[2] / 4);
    }
    return std::array<size_t, 3>{t.size(), h.size(), w.size()};
  };
  for (int g = 0; g < 8; ++g) {
    const auto [t, h, w] = box(layout, g);
    EXPECT_EQ(t * h * w, size_t{8 * 8 * 16 / 8}) << "planes divide this grid, so domains are boxes";
    const auto [pt, ph, pw] = box(partial, g);
    EXPECT_LE(pt * ph * pw, size_t{2 * 6 * 8 * 13 / 8}) << g;
  }
}

TEST(ShardPlan, CoversAllTokensInOrderForAnyMesh) {
  for (const auto& spec : all_kinds()) {
    const TokenLayout layout = make_token_layout(spec);
    for (int outer : {1, 2, 3, 5, 7, 8}) {
      if (spec.domains > 1 && spec.domains % outer != 0) continue;
      for (int ulysses : {1, 2, 5}) {
        const ShardPlan plan = make_shard_plan(layout, {1, outer, ulysses});
        ASSERT_EQ(plan.rank_tokens.size(), static_cast<size_t>(outer * ulysses) + 1);
        EXPECT_EQ(plan.rank_tokens.front(), 0);
        EXPECT_EQ(plan.rank_tokens.back(), layout.tokens());
        EXPECT_TRUE(std::is_sorted(plan.rank_tokens.begin(), plan.rank_tokens.end()));
        for (int r = 0; r <= outer; ++r) {
          EXPECT_EQ(plan.outer_tokens[r], plan.rank_tokens[r * ulysses]);
          EXPECT_EQ(plan.outer_tokens[r], layout.block_offsets[plan.outer_blocks[r]]);
        }
      }
    }
  }
}

TEST(ShardPlan, FirstShardOfDomainsHoldsThePrefixToo) {
  for (BlockOrder order : kOrders) {
    const TokenLayout layout =
        make_token_layout(with_prefix({{9, 13, 11}, {4, 4, 4}, order, 6}, {300, 70}));
    for (int outer : {1, 2, 3, 6}) {
      const ShardPlan plan = make_shard_plan(layout, {1, outer, 2});
      EXPECT_EQ(plan.outer_blocks[0], 0);
      for (int r = 1; r <= outer; ++r) {
        EXPECT_EQ(plan.outer_blocks[r], layout.domain_blocks[r * (6 / outer)]);
      }
    }
  }
}

TEST(ShardPlan, OneDomainIsSharedByTokensPrefixIncluded) {
  const TokenLayoutSpec video{{8, 8, 8}, {4, 4, 4}, BlockOrder::kKd, 1};
  const auto borders = [](const TokenLayoutSpec& spec, int outer) {
    return make_shard_plan(make_token_layout(spec), {1, outer, 1}).outer_blocks;
  };
  // 8 blocks of 64: shares of 512 / 3 end at 170 and 341 tokens.
  EXPECT_THAT(borders(video, 3), ::testing::ElementsAre(0, 3, 5, 8));
  // 100 and 28 more in 3 blocks: shares of 640 / 3 end at 213 and 426.
  EXPECT_THAT(borders(with_prefix(video, {100, 28}), 3), ::testing::ElementsAre(0, 4, 8, 11));
  // The prefix alone is two shares.
  EXPECT_THAT(borders(with_prefix(video, {1024}), 3), ::testing::ElementsAre(0, 8, 16, 24));
}

TEST(ShardPlan, NamesTheLegalDegreesWhenDomainsDoNotDivide) {
  const TokenLayout layout = make_token_layout({{8, 8, 8}, {4, 4, 4}, BlockOrder::kKd, 8});
  try {
    make_shard_plan(layout, {1, 3, 1});
    FAIL() << "3 outer ranks share 8 domains";
  } catch (const ConfigError& error) {
    EXPECT_STREQ(error.what(),
                 "parallel.outer: 3 does not divide attention.domains: 8; legal: 1, 2, 4, 8");
  }
}

TEST(ExchangePlan, WhatIsSentIsWhatIsReceived) {
  const std::vector<int64_t> counts{5, 0, 7, 2};
  for (int self = 0; self < 4; ++self) {
    const std::vector<ExchangePlan> plans{gather_plan(counts, self), ulysses_plan(counts, 3, self),
                                          ring_step_plan(counts, self, 2)};
    for (const auto& plan : plans) EXPECT_EQ(transpose(transpose(plan)), plan);
  }
  for (int from = 0; from < 4; ++from) {
    for (int to = 0; to < 4; ++to) {
      EXPECT_EQ(gather_plan(counts, from).send[to].count,
                gather_plan(counts, to).receive[from].count);
      EXPECT_EQ(ulysses_plan(counts, 3, from).send[to].count,
                ulysses_plan(counts, 3, to).receive[from].count);
    }
    const int next = (from + 1) % 4;
    for (int step = 0; step < 4; ++step) {
      EXPECT_EQ(ring_step_plan(counts, from, step).send[0].count,
                ring_step_plan(counts, next, step).receive[0].count);
    }
  }
}

TEST(MeshCoordinate, UlyssesIsInnermost) {
  const MeshShape shape{2, 3, 2};
  EXPECT_EQ(coordinate_of(0, shape), (MeshCoordinate{0, 0, 0}));
  EXPECT_EQ(coordinate_of(1, shape), (MeshCoordinate{0, 0, 1}));
  EXPECT_EQ(coordinate_of(2, shape), (MeshCoordinate{0, 1, 0}));
  EXPECT_EQ(coordinate_of(11, shape), (MeshCoordinate{1, 2, 1}));
}

}  // namespace
}  // namespace sprocket::parallel
