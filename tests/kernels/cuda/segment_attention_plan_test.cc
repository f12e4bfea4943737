#include "kernels/cuda/segment_attention_plan.h"

#include <gtest/gtest.h>

#include <set>

#include "kernels/cuda/segment_attention_tiles.h"

namespace sprocket::kernels::cuda {
namespace {

SegmentAttentionProblem problem(int heads, int query_blocks, int kv_blocks, int row_pairs) {
  SegmentAttentionProblem p;
  p.table.batch = 1;
  p.table.heads = heads;
  p.table.query_blocks = query_blocks;
  p.table.kv_blocks = kv_blocks;
  p.table.max_pairs = int64_t{heads} * query_blocks * row_pairs;
  p.last_head = heads;
  p.max_query_rows = p.max_kv_rows = 64;
  p.max_row_pairs = row_pairs;
  return p;
}

constexpr int64_t kSlot = 8192;

TEST(SegmentAttentionPlan, OneGroupWhereItFits) {
  const auto p = problem(12, 10, 100, 7);
  const auto plan = plan_segment_attention_backward(p, 12 * 10 * 7 * kSlot);
  EXPECT_EQ(plan.heads_per_group, 12);
  EXPECT_EQ(plan.query_blocks_per_group, 10);
  EXPECT_EQ(plan.workspace_bytes, 12 * 10 * 7 * kSlot);
}

TEST(SegmentAttentionPlan, HeadsInEvenGroups) {
  const auto plan =
      plan_segment_attention_backward(problem(12, 10, 100, 7), 5 * 10 * 7 * kSlot + 1);
  EXPECT_EQ(plan.heads_per_group, 4);
  EXPECT_EQ(plan.query_blocks_per_group, 10);
  EXPECT_EQ(plan.slots, 4 * 10 * 7);
}

TEST(SegmentAttentionPlan, QueryBlocksOfOneHead) {
  const auto plan = plan_segment_attention_backward(problem(12, 10, 100, 7), 4 * 7 * kSlot);
  EXPECT_EQ(plan.heads_per_group, 1);
  EXPECT_EQ(plan.query_blocks_per_group, 4);
  EXPECT_EQ(plan.slots, 4 * 7);
}

TEST(SegmentAttentionPlan, NeverLessThanARow) {
  const auto plan = plan_segment_attention_backward(problem(12, 10, 100, 7), 0);
  EXPECT_EQ(plan.heads_per_group, 1);
  EXPECT_EQ(plan.query_blocks_per_group, 1);
  EXPECT_EQ(plan.workspace_bytes, 7 * kSlot);
}

// Any group lists at most as many pairs as there are slots.
TEST(SegmentAttentionPlan, GroupsFitTheirSlots) {
  for (int64_t bytes = 0; bytes < 90 * kSlot; bytes += kSlot / 2) {
    const auto p = problem(3, 4, 9, 7);
    const auto plan = plan_segment_attention_backward(p, bytes);
    EXPECT_GE(plan.slots, int64_t{plan.heads_per_group} * plan.query_blocks_per_group * 7);
    EXPECT_TRUE(plan.heads_per_group == 1 || plan.query_blocks_per_group == 4);
    EXPECT_LE(plan.workspace_bytes, std::max<int64_t>(bytes, 7 * kSlot));
  }
}

TEST(SegmentAttentionPlan, ABoundOnAllPairsBoundsTheSlots) {
  auto p = problem(12, 10, 100, 7);
  p.table.max_pairs = 30;
  EXPECT_EQ(plan_segment_attention_backward(p, int64_t{1} << 40).slots, 30);
  p.table.max_pairs = 0;
  EXPECT_EQ(plan_segment_attention_backward(p, int64_t{1} << 40).workspace_bytes, 0);
}

// A pass over keys of which none is there, or of a rank without queries.
TEST(SegmentAttentionPlan, NothingForNoRows) {
  for (const bool queries : {false, true}) {
    auto p = problem(12, 10, 100, 7);
    (queries ? p.max_query_rows : p.max_kv_rows) = 0;
    const auto plan = plan_segment_attention_backward(p, int64_t{1} << 40);
    EXPECT_EQ(plan.slots, 0);
    EXPECT_EQ(plan.workspace_bytes, 0);
  }
}

TEST(SegmentAttentionTiles, RowsOfTilesAddUp) {
  for (int rows = 0; rows <= 130; ++rows) {
    int sum = 0;
    for (int tile = 0; tile < tiles_of(rows, 64); ++tile) {
      EXPECT_GT(rows_of_tile(rows, 64, tile), 0);
      EXPECT_LE(rows_of_tile(rows, 64, tile), 64);
      sum += rows_of_tile(rows, 64, tile);
    }
    EXPECT_EQ(sum, rows);
    EXPECT_LE(rows_of_tile(rows, 64, tiles_of(rows, 64)), 0);
  }
}

TEST(SegmentAttentionTiles, ExchangedColumnsOfAThreadLieSideBySide) {
  std::set<int> places;
  for (int column = 0; column < 128; ++column) {
    const int place = exchanged_column(column);
    places.insert(place);
    EXPECT_EQ(exchanged_column(place), column);
    const int thread = column % 8 / 2;
    EXPECT_EQ(place / 8, column / 32 * 4 + thread);
  }
  EXPECT_EQ(places.size(), 128u);
}

TEST(SegmentAttentionTiles, LowerBound) {
  const int32_t ids[] = {1, 4, 4, 9};
  for (int id = 0; id < 12; ++id) {
    EXPECT_EQ(lower_bound(ids, 0, 4, id), std::lower_bound(ids, ids + 4, id) - ids) << id;
    EXPECT_EQ(lower_bound(ids, 1, 3, id), std::lower_bound(ids + 1, ids + 3, id) - ids) << id;
  }
  EXPECT_EQ(lower_bound(ids, 2, 2, 0), 2);
}

}  // namespace
}  // namespace sprocket::kernels::cuda
