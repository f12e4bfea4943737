#include "kernels/cuda/segment_attention_sm90_tiles.h"

#include <gtest/gtest.h>

#include <set>
#include <tuple>
#include <vector>

namespace sprocket::kernels::cuda {
namespace {

TEST(SegmentAttentionSm90Tiles, WarpsHoldTheRowsOfTheirBlocksOnce) {
  for (const int groups : {kGroups, kQueryGradientGroups}) {
    for (const int query_rows : {32, 64, 128}) {
      std::set<std::pair<int, int>> rows;
      for (int warp = 0; warp < 4 * groups; ++warp) {
        const int block = block_of_warp(warp, query_rows);
        EXPECT_LT(block, blocks_together(query_rows, groups));
        EXPECT_TRUE(blocks_of_group(warp / 4, query_rows) >> block & 1);
        for (int i = 0; i < 16; ++i) rows.emplace(block, first_row_of_warp(warp, query_rows) + i);
      }
      EXPECT_EQ(rows.size(), 64u * groups);
      for (const auto& [block, row] : rows) EXPECT_LT(row, query_rows) << block;
    }
  }
}

TEST(SegmentAttentionSm90Tiles, BlocksOfGroups) {
  EXPECT_EQ(blocks_of_group(0, 128), 1u);
  EXPECT_EQ(blocks_of_group(1, 128), 1u);
  EXPECT_EQ(blocks_of_group(0, 64), 1u);
  EXPECT_EQ(blocks_of_group(1, 64), 2u);
  EXPECT_EQ(blocks_of_group(0, 32), 3u);
  EXPECT_EQ(blocks_of_group(1, 32), 12u);
  EXPECT_EQ(blocks_of_group(3, 128), 2u);
  EXPECT_EQ(blocks_of_group(3, 64), 8u);
  EXPECT_EQ(blocks_of_group(3, 32), 192u);
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

// A load of a map has 64 keys of a warpgroup's queries, or of one of its two query blocks.
TEST(SegmentAttentionSm90Tiles, MapsOfSlots) {
  for (const auto& [query_rows, columns, panels] :
       {std::tuple{32, 32, 1}, std::tuple{64, 64, 1}, std::tuple{128, 64, 2}}) {
    const PairSlot slot = pair_slot(query_rows, 100);
    const TileMap map = slot_map(slot, 5);
    const auto wide = static_cast<uint64_t>(columns);
    EXPECT_EQ(std::vector<uint64_t>(map.extents, map.extents + 5),
              (std::vector<uint64_t>{wide, 5 * 128, static_cast<uint64_t>(panels), 1, 1}));
    EXPECT_EQ(std::vector<uint64_t>(map.strides, map.strides + 4),
              (std::vector<uint64_t>{2 * static_cast<uint64_t>(query_rows), 2 * wide, 16, 16}));
    EXPECT_EQ(std::vector<uint32_t>(map.box, map.box + 5),
              (std::vector<uint32_t>{static_cast<uint32_t>(columns), 64, 1, 1, 1}));
    // Row r, column c of the map is the element of the slots that the first pass wrote.
    EXPECT_EQ(map.strides[0] * map.extents[1], 2u * 5 * static_cast<uint64_t>(slot.elements()));
  }
}

}  // namespace
}  // namespace sprocket::kernels::cuda
