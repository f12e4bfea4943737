#include "kernels/cuda/row_layout.h"

#include <gtest/gtest.h>

#include <vector>

namespace sprocket::kernels::cuda {
namespace {

TEST(RowLayoutTest, ThreadsHoldTheWholeRowInWholeWarps) {
  EXPECT_EQ(kMaxRowDim, 8192);
  for (int64_t dim = 8; dim <= kMaxRowDim; dim += 8) {
    const int threads = row_threads(dim);
    ASSERT_EQ(threads % 32, 0);
    ASSERT_LE(threads, kMaxRowThreads);
    ASSERT_GE(int64_t{8} * kRowOctets * threads, dim);
    ASSERT_LT(int64_t{8} * kRowOctets * (threads - 32), dim);  // no warp without work
  }
}

TEST(RowLayoutTest, ChunksAreTheRowsInOrderAndOfOneSample) {
  for (const RowChunks& chunks : {RowChunks{1, 1, 32}, RowChunks{3, 32, 32}, RowChunks{2, 33, 32},
                                  RowChunks{4, 5, 4}, RowChunks{3, 0, 32}, RowChunks{0, 7, 4}}) {
    std::vector<int64_t> next(chunks.batch, 0);  // row of each sample
    int64_t sample = 0;
    for (int64_t chunk = 0; chunk < chunks.count(); ++chunk) {
      ASSERT_GE(chunks.sample(chunk), sample);
      sample = chunks.sample(chunk);
      ASSERT_LT(sample, chunks.batch);
      ASSERT_EQ(chunks.first_row(chunk), next[sample]);
      ASSERT_GT(chunks.row_count(chunk), 0);
      ASSERT_LE(chunks.row_count(chunk), chunks.size);
      next[sample] += chunks.row_count(chunk);
    }
    for (const int64_t rows : next) EXPECT_EQ(rows, chunks.rows);
  }
}

}  // namespace
}  // namespace sprocket::kernels::cuda
