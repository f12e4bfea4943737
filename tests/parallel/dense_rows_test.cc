// Which passes may go through a dense attention kernel: those of whose pairs none is left out.
#include "parallel/attention/dense_rows.h"

#include <ATen/ops/empty.h>
#include <gtest/gtest.h>

namespace sprocket::parallel {
namespace {

// Two heads, query blocks of 4 and 2 rows, KV blocks of 4, 4 and 3 rows in a row from row 5 on.
class DenseRowsTest : public ::testing::Test {
 protected:
  std::optional<std::vector<DenseRows>> find(
      const std::optional<kernels::HeadRange>& heads = {}) const {
    QuerySide query = query_;
    query.table = std::make_shared<const kernels::SegmentTable>(table_);
    return dense_rows(query, map_, heads);
  }

  // Without the pair at `index`.
  void drop_pair(int index) {
    table_.kv_block.erase(table_.kv_block.begin() + index);
    for (int64_t& offset : table_.row_offsets) offset -= offset > index ? 1 : 0;
  }

  kernels::SegmentTable table_ = kernels::make_dense_table(1, 2, 2, 3);
  kernels::KvBlockMap map_{3, false, {{0, 4, 5, 0}, {0, 4, 9, 0}, {0, 3, 13, 0}}};
  QuerySide query_{at::empty({1, 6, 2, 8}), {0, 4, 6}, nullptr, {}, 1};
};

TEST_F(DenseRowsTest, AFullTableIsDense) {
  EXPECT_EQ(find(), (std::vector<DenseRows>{{0, 5, 11}}));
  EXPECT_EQ(find(kernels::HeadRange{0, 2}), (std::vector<DenseRows>{{0, 5, 11}}));
}

TEST_F(DenseRowsTest, ATableThatLacksOnePairIsNot) {
  for (int pair = 0; pair < 12; ++pair) {
    const kernels::SegmentTable full = table_;
    drop_pair(pair);
    EXPECT_FALSE(find()) << pair;
    table_ = full;
  }
}

TEST_F(DenseRowsTest, BlocksThatAreNotInThePassMayBeMissing) {
  map_.blocks[1].rows = 0;
  map_.blocks[2].first_row = 9;
  EXPECT_EQ(find(), (std::vector<DenseRows>{{0, 5, 7}}));
  // Block 1 of the first head's second query block, then block 2 of the same row.
  drop_pair(4);
  EXPECT_EQ(find(), (std::vector<DenseRows>{{0, 5, 7}}));
  drop_pair(4);
  EXPECT_FALSE(find());
}

TEST_F(DenseRowsTest, BuffersAreOneRunEach) {
  map_.blocks = {{1, 4, 7, 0}, {3, 4, 0, 0}, {1, 3, 4, 0}};
  EXPECT_EQ(find(), (std::vector<DenseRows>{{1, 4, 7}, {3, 0, 4}}));
  map_.blocks[2].first_row = 3;  // a gap
  EXPECT_FALSE(find());
  map_.blocks[2].first_row = 5;  // an overlap
  EXPECT_FALSE(find());
}

TEST_F(DenseRowsTest, OtherThingsThatAreNotDense) {
  EXPECT_FALSE(find(kernels::HeadRange{0, 1}));
  EXPECT_FALSE(find(kernels::HeadRange{1, 2}));
  map_.blocks[2].bias = 0.5;
  EXPECT_FALSE(find());
  map_.blocks[2].bias = 0;
  query_.query_rows = {4, 2, 3, 2};
  EXPECT_FALSE(find());
  query_.query_rows.clear();
  query_.query_offsets = {0, 4, 5};
  EXPECT_FALSE(find());
  query_.query_offsets = {0, 4, 6};
  EXPECT_TRUE(find());
  map_.blocks = {{0, 1, 0, 0}, {}, {}};  // one key
  EXPECT_FALSE(find());
  map_.blocks = {{}, {}, {}};
  EXPECT_FALSE(find());
  map_.per_head = true;
  map_.blocks = std::vector<kernels::KvBlock>(6, {0, 4, 0, 0});
  EXPECT_FALSE(find());
}

}  // namespace
}  // namespace sprocket::parallel
