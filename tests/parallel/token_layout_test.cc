#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "parallel/exchange_plan.h"
#include "parallel/token_layout.h"

namespace sprocket::parallel {
namespace {

const std::vector<TokenLayoutSpec> kSpecs{
    {{21, 30, 52}, {4, 4, 4}, BlockOrder::kKd, 8},  {{5, 9, 6}, {4, 4, 4}, BlockOrder::kKd, 3},
    {{5, 9, 6}, {4, 4, 4}, BlockOrder::kRaster, 5}, {{1, 1, 1}, {4, 4, 4}, BlockOrder::kKd, 4},
    {{8, 8, 8}, {2, 4, 8}, BlockOrder::kRaster, 1}, {{3, 5, 4}, {4, 4, 4}, BlockOrder::kKd, 16},
};

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

TEST(TokenLayout, DomainsAreOrderedRangesThatCoverAllBlocks) {
  for (const auto& spec : kSpecs) {
    const TokenLayout layout = make_token_layout(spec);
    ASSERT_EQ(layout.domain_blocks.size(), static_cast<size_t>(spec.domains) + 1);
    EXPECT_EQ(layout.domain_blocks.front(), 0);
    EXPECT_EQ(layout.domain_blocks.back(), layout.blocks());
    EXPECT_TRUE(std::is_sorted(layout.domain_blocks.begin(), layout.domain_blocks.end()));
  }
}

TEST(TokenLayout, KdDomainsAreBoxesOfNearlyEqualSize) {
  const TokenLayout layout = make_token_layout({{21, 30, 52}, {4, 4, 4}, BlockOrder::kKd, 8});
  ASSERT_EQ(layout.blocks(), 6 * 8 * 13);
  for (int g = 0; g < 8; ++g) {
    std::set<int> t, h, w;
    for (int block = layout.domain_blocks[g]; block < layout.domain_blocks[g + 1]; ++block) {
      const auto at = layout.position(layout.block_offsets[block]);
      t.insert(at[0] / 4), h.insert(at[1] / 4), w.insert(at[2] / 4);
    }
    const int blocks = layout.domain_blocks[g + 1] - layout.domain_blocks[g];
    EXPECT_EQ(static_cast<size_t>(blocks), t.size() * h.size() * w.size());
    EXPECT_THAT(blocks, ::testing::AllOf(::testing::Ge(72), ::testing::Le(84)));
  }
}

TEST(ShardPlan, CoversAllTokensInOrderForAnyMesh) {
  for (const auto& spec : kSpecs) {
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
