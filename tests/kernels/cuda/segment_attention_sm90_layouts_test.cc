// The layouts of family sm_90, evaluated on the host, against plain formulas.
#include "kernels/cuda/segment_attention_sm90_layouts.h"

#include <gtest/gtest.h>

namespace sprocket::kernels::cuda::sm90 {
namespace {

using BFloat = cutlass::bfloat16_t;
using Half = cutlass::half_t;

// Where a tensor map writes an element is where descriptors look for it, in keys and in values, in
// every stage.
template <class T, int kHeadDim>
void expect_tiles() {
  constexpr int kStages = 3;
  const auto keys = as_position_independent_swizzle_layout(
      typename Layouts<T, kHeadDim>::template Keys<kStages>{});
  const auto values = as_position_independent_swizzle_layout(
      typename Layouts<T, kHeadDim>::template Values<kStages>{});
  for (int stage = 0; stage < kStages; ++stage) {
    for (int key = 0; key < kTileRows; ++key) {
      for (int column = 0; column < kHeadDim; ++column) {
        const int place = stage * kTileRows * kHeadDim + place_in_tile(key, column);
        ASSERT_EQ(int(keys(key, column, stage)), place) << key << ", " << column;
        ASSERT_EQ(int(values(column, key, stage)), place) << key << ", " << column;
      }
    }
  }
}

TEST(SegmentAttentionSm90Layouts, TilesLieWhereTensorMapsPutThem) {
  expect_tiles<BFloat, 64>();
  expect_tiles<BFloat, 128>();
  expect_tiles<Half, 128>();
}

// Gradients of scores, as the map writes them: panels of 64 or 32 queries, [panel][key][query],
// whose 16-byte pieces are exchanged by row of 128 bytes; for each warpgroup of each stage.
template <class T, int kQueryRows>
void expect_score_gradients() {
  constexpr int kTiles = 5, kWide = slot_panel_columns(kQueryRows);
  const auto tiles = as_position_independent_swizzle_layout(
      typename QueryGradientLayouts<T, 64, kQueryRows>::template ScoreGradients<kTiles>{});
  for (int tile = 0; tile < kTiles; ++tile) {
    for (int query = 0; query < kGroupRows; ++query) {
      for (int key = 0; key < kTileRows; ++key) {
        const int panel = query / kWide, piece = query % kWide / 8;
        const int exchange = kWide == 64 ? key % 8 : key / 2 % 4;
        const int place = ((tile * kGroupRows / kWide + panel) * kTileRows + key) * kWide +
                          (piece ^ exchange) * 8 + query % 8;
        ASSERT_EQ(int(tiles(query, key, tile)), place) << query << ", " << key;
      }
    }
  }
}

TEST(SegmentAttentionSm90Layouts, GradientsOfScoresLieWhereTensorMapsPutThem) {
  expect_score_gradients<BFloat, 32>();
  expect_score_gradients<BFloat, 64>();
  expect_score_gradients<BFloat, 128>();
  expect_score_gradients<Half, 32>();
}

// Value 4 n + i of a thread's sums is row 16 warp + lane / 4 + 8 (i / 2), column 8 n +
// 2 (lane % 4) + i % 2: what masks, statistics and stores are written for.
template <class Mma, int kColumns>
void expect_sums() {
  const Mma mma;
  const auto shape = Shape<Int<kGroupRows>, Int<kColumns>>{};
  for (int thread = 0; thread < 128; ++thread) {
    const auto sums = mma.get_thread_slice(thread).partition_C(make_identity_tensor(shape));
    ASSERT_EQ(int(size(sums)), kColumns / 2);
    for (int i = 0; i < size(sums); ++i) {
      const int row = thread / 32 * 16 + thread % 32 / 4 + i % 4 / 2 * 8;
      ASSERT_EQ(int(get<0>(sums(i))), row) << thread << ", " << i;
      ASSERT_EQ(int(get<1>(sums(i))), i / 4 * 8 + thread % 4 * 2 + i % 2) << thread << ", " << i;
    }
  }
}

TEST(SegmentAttentionSm90Layouts, SumsLieWhereTheKernelTakesThemToBe) {
  expect_sums<Layouts<BFloat, 64>::ScoresMma, 64>();
  expect_sums<Layouts<BFloat, 64>::OutputMma, 64>();
  expect_sums<Layouts<BFloat, 128>::OutputMma, 128>();
  expect_sums<Layouts<Half, 128>::ScoresMma, 64>();
  expect_sums<Layouts<Half, 128>::OutputMma, 128>();
  expect_sums<GradientLayouts<BFloat, 128, 32>::ScoresMma, 32>();
  expect_sums<GradientLayouts<Half, 64, 32>::ScoresMma, 32>();
  expect_sums<QueryGradientLayouts<BFloat, 128, 64>::Mma, 128>();
  expect_sums<QueryGradientLayouts<Half, 64, 32>::Mma, 64>();
}

// Value i of a left operand: as the sums, of which two groups of 8 columns are one step of 16. So
// rounded sums are a left operand in the same order, and queries are loaded two values at a time.
template <class Mma, int kColumns>
void expect_left() {
  const Mma mma;
  const auto shape = Shape<Int<kGroupRows>, Int<kColumns>>{};
  EXPECT_EQ(int(size(partition_shape_A(mma, shape))), kColumns / 2);
  for (int thread = 0; thread < 128; ++thread) {
    const auto left = mma.get_thread_slice(thread).partition_A(make_identity_tensor(shape));
    ASSERT_EQ(int(size(left)), kColumns / 2);
    for (int i = 0; i < size(left); ++i) {
      const int row = thread / 32 * 16 + thread % 32 / 4 + i % 4 / 2 * 8;
      ASSERT_EQ(int(get<0>(left(i))), row) << thread << ", " << i;
      ASSERT_EQ(int(get<1>(left(i))), i / 4 * 8 + thread % 4 * 2 + i % 2) << thread << ", " << i;
    }
  }
}

TEST(SegmentAttentionSm90Layouts, SumsAreLeftOperands) {
  expect_left<Layouts<BFloat, 64>::ScoresMma, 64>();
  expect_left<Layouts<BFloat, 128>::ScoresMma, 128>();
  expect_left<Layouts<BFloat, 128>::OutputMma, 64>();
  expect_left<Layouts<Half, 64>::OutputMma, 64>();
  expect_left<GradientLayouts<BFloat, 128, 32>::GradientMma, 32>();
}

}  // namespace
}  // namespace sprocket::kernels::cuda::sm90
