#include "kernels/segment_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace sprocket::kernels {
namespace {

using ::testing::ElementsAre;

TEST(SegmentTable, DenseListsEverything) {
  const SegmentTable table = make_dense_table(2, 3, 4, 5);
  EXPECT_EQ(table.rows(), 24);
  EXPECT_EQ(table.density(), 1);
  EXPECT_THAT(table.row(1, 2, 3), ElementsAre(0, 1, 2, 3, 4));
}

TEST(SegmentTable, WithoutPairsTheDensityIsZero) {
  EXPECT_EQ(make_dense_table(1, 1, 0, 3).density(), 0);
  EXPECT_EQ(make_dense_table(1, 1, 3, 0).density(), 0);
}

TEST(SegmentTable, InverseNamesTheQueryBlocksOfEachKvBlock) {
  // Head 0: {0, 2}, {}, {2}; head 1: {1}, {0, 1, 2}, {1}.
  const SegmentTable table{1, 2, 3, 3, {0, 2, 2, 3, 4, 7, 8}, {0, 2, 2, 1, 0, 1, 2, 1}};
  const InverseTable inverse = invert(table);
  EXPECT_THAT(inverse.row_offsets, ElementsAre(0, 1, 1, 3, 4, 7, 8));
  EXPECT_THAT(inverse.query_block, ElementsAre(0, 0, 2, 1, 0, 1, 2, 1));
  EXPECT_DOUBLE_EQ(table.density(), 8.0 / 18);
}

TEST(SegmentTable, InverseOfNothingIsEmpty) {
  const SegmentTable table{1, 1, 2, 2, {0, 0, 0}, {}};
  EXPECT_THAT(invert(table).row_offsets, ElementsAre(0, 0, 0));
  EXPECT_TRUE(invert(table).query_block.empty());
}

}  // namespace
}  // namespace sprocket::kernels
