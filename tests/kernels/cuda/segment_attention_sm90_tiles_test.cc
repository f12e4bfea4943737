#include "kernels/cuda/segment_attention_sm90_tiles.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <vector>

#include "base/philox.h"

namespace sprocket::kernels::cuda {
namespace {

TEST(SegmentAttentionSm90Tiles, WarpsHoldTheRowsOfTheirBlocksOnce) {
  for (const int query_rows : {32, 64, 128}) {
    std::set<std::pair<int, int>> rows;
    for (int warp = 0; warp < 8; ++warp) {
      const int block = block_of_warp(warp, query_rows);
      EXPECT_LT(block, blocks_together(query_rows));
      EXPECT_TRUE(blocks_of_group(warp / 4, query_rows) >> block & 1);
      for (int i = 0; i < 16; ++i) rows.emplace(block, first_row_of_warp(warp, query_rows) + i);
    }
    EXPECT_EQ(rows.size(), 128u);
    for (const auto& [block, row] : rows) EXPECT_LT(row, query_rows) << block;
  }
}

TEST(SegmentAttentionSm90Tiles, BlocksOfGroups) {
  EXPECT_EQ(blocks_of_group(0, 128), 1u);
  EXPECT_EQ(blocks_of_group(1, 128), 1u);
  EXPECT_EQ(blocks_of_group(0, 64), 1u);
  EXPECT_EQ(blocks_of_group(1, 64), 2u);
  EXPECT_EQ(blocks_of_group(0, 32), 3u);
  EXPECT_EQ(blocks_of_group(1, 32), 12u);
}

// Every id of any list once, ascending, with the lists that have it.
TEST(SegmentAttentionSm90Tiles, UnionOfLists) {
  for (int seed = 0; seed < 50; ++seed) {
    const RandomStream random(seed, 0, 0, RandomPurpose::kTest);
    std::vector<int> lists[4];
    unsigned expected[40] = {};
    for (int list = 0; list < 4; ++list) {
      const double density = random.uniform(1000 + list);
      for (int id = 0; id < 40; ++id) {
        if (random.uniform(list * 40 + id) >= density) continue;
        lists[list].push_back(id);
        expected[id] |= 1u << list;
      }
    }
    size_t places[4] = {};
    int former = -1;
    for (;;) {
      int heads[4];
      for (int i = 0; i < 4; ++i) {
        heads[i] = places[i] < lists[i].size() ? lists[i][places[i]] : kNoBlock;
      }
      const int id = smallest_head(heads);
      const unsigned takers = takers_of(id, heads);
      if (takers == 0) break;
      ASSERT_GT(id, former);
      for (int skipped = former + 1; skipped < id; ++skipped) EXPECT_EQ(expected[skipped], 0u);
      EXPECT_EQ(takers, expected[id]) << id;
      for (int i = 0; i < 4; ++i) places[i] += takers >> i & 1;
      former = id;
    }
    for (int i = 0; i < 4; ++i) EXPECT_EQ(places[i], lists[i].size());
  }
}

TEST(SegmentAttentionSm90Tiles, NoListsNoTakers) {
  const int heads[2] = {kNoBlock, kNoBlock};
  EXPECT_EQ(smallest_head(heads), kNoBlock);
  EXPECT_EQ(takers_of(kNoBlock, heads), 0u);
}

TEST(SegmentAttentionSm90Tiles, PiecesOfATileLieInDifferentBanks) {
  std::set<int> places;
  for (int row = 0; row < 64; ++row) {
    for (int column = 0; column < 128; ++column) {
      const int place = place_in_tile(row, column);
      places.insert(place);
      EXPECT_EQ(place, place_in_tile(row, column / 8 * 8) + column % 8);
    }
  }
  EXPECT_EQ(places.size(), 64u * 128);
  EXPECT_EQ(*places.rbegin(), 64 * 128 - 1);
  for (int row = 0; row < 64; row += 8) {
    for (int column = 0; column < 128; column += 8) {
      std::set<int> banks;
      for (int i = 0; i < 8; ++i) banks.insert(place_in_tile(row + i, column) * 2 % 128 / 16);
      EXPECT_EQ(banks.size(), 8u);
    }
  }
}

TEST(SegmentAttentionSm90Tiles, MapsOfKeys) {
  const TileMap map = tile_map(24 * 128, 128, 1000 * 24 * 128, 128, 24, 3);
  EXPECT_EQ(std::vector<uint64_t>(map.extents, map.extents + 5),
            (std::vector<uint64_t>{64, kMapRows, 2, 24, 3}));
  EXPECT_EQ(std::vector<uint64_t>(map.strides, map.strides + 4),
            (std::vector<uint64_t>{6144, 128, 256, 6144000}));
  EXPECT_EQ(std::vector<uint32_t>(map.box, map.box + 5), (std::vector<uint32_t>{64, 64, 2, 1, 1}));
}

// What all heads and batches share has one coordinate, and a stride that maps allow.
TEST(SegmentAttentionSm90Tiles, MapsOfPools) {
  const TileMap map = tile_map(64, 0, 0, 64, 12, 2);
  EXPECT_EQ(std::vector<uint64_t>(map.extents, map.extents + 5),
            (std::vector<uint64_t>{64, kMapRows, 1, 1, 1}));
  EXPECT_EQ(std::vector<uint64_t>(map.strides, map.strides + 4),
            (std::vector<uint64_t>{128, 128, 16, 16}));
  EXPECT_EQ(map_coordinate(7, 0), 0);
  EXPECT_EQ(map_coordinate(7, 128), 7);
}

}  // namespace
}  // namespace sprocket::kernels::cuda
