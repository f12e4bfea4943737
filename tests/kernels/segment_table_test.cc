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

TEST(SegmentTable, DensityIsTheShareOfSelectedPairs) {
  const SegmentTable table{1, 2, 3, 3, {0, 2, 2, 3, 4, 7, 8}, {0, 2, 2, 1, 0, 1, 2, 1}};
  EXPECT_DOUBLE_EQ(table.density(), 8.0 / 18);
}

}  // namespace
}  // namespace sprocket::kernels
