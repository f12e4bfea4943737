#include "kernels/cuda/inverse_table.h"

#include <gtest/gtest.h>

#include <vector>

#include "base/error.h"
#include "base/philox.h"
#include "kernels/segment_table.h"
#include "tests/kernels/cuda/device_array.h"

namespace sprocket::kernels::cuda {
namespace {

// Each pair with probability 1 / `spread`, but for full rows and empty ones.
SegmentTable random_table(int batch, int heads, int query_blocks, int kv_blocks, int spread) {
  SegmentTable table{batch, heads, query_blocks, kv_blocks, {0}, {}};
  const RandomStream stream(5, 0, static_cast<uint64_t>(spread), RandomPurpose::kTest);
  uint64_t draw = 0;
  for (int64_t row = 0; row < table.rows(); ++row) {
    for (int32_t j = 0; j < kv_blocks; ++j, ++draw) {
      const bool drawn = stream.below(draw, spread) == 0;
      if ((drawn && row % 11 != 3) || row % 11 == 0) table.kv_block.push_back(j);
    }
    table.row_offsets.push_back(static_cast<int64_t>(table.kv_block.size()));
  }
  return table;
}

struct Inverse {
  std::vector<int32_t> column_offsets{0}, query_block, pair;
};

Inverse inverse_of(const SegmentTable& table) {
  Inverse inverse;
  const int64_t batch_heads = int64_t{table.batch} * table.heads;
  for (int64_t bh = 0; bh < batch_heads; ++bh) {
    for (int32_t j = 0; j < table.kv_blocks; ++j) {
      for (int i = 0; i < table.query_blocks; ++i) {
        const int64_t row = bh * table.query_blocks + i;
        for (int64_t p = table.row_offsets[row]; p < table.row_offsets[row + 1]; ++p) {
          if (table.kv_block[p] != j) continue;
          inverse.query_block.push_back(i);
          inverse.pair.push_back(static_cast<int32_t>(p));
        }
      }
      inverse.column_offsets.push_back(static_cast<int32_t>(inverse.pair.size()));
    }
  }
  return inverse;
}

// A table of the host in device memory, with room for `spare` pairs that it does not have.
struct TableOnDevice {
  TableOnDevice(const SegmentTable& table, int64_t spare)
      : row_offsets(std::vector<int32_t>(table.row_offsets.begin(), table.row_offsets.end())),
        kv_block(padded(table.kv_block, spare)),
        view{table.batch,     table.heads,       table.query_blocks, table.kv_blocks,
             kv_block.size(), row_offsets.get(), kv_block.get()} {}
  static std::vector<int32_t> padded(std::vector<int32_t> ids, int64_t spare) {
    ids.resize(ids.size() + spare, 1 << 30);
    return ids;
  }
  DeviceArray<int32_t> row_offsets, kv_block;
  DeviceTable view;
};

void expect_inverse(const SegmentTable& table) {
  const CudaStream stream;
  constexpr int64_t kSpare = 9;
  const int64_t pairs = static_cast<int64_t>(table.kv_block.size());
  TableOnDevice on_device(table, kSpare);
  const DeviceTable& view = on_device.view;
  DeviceArray<int32_t> column_offsets(view.columns() + 1), query_block(pairs + kSpare),
      pair(pairs + kSpare);
  DeviceArray<char> workspace(inverse_table_workspace_bytes(view));
  const DeviceInverseTable inverse = build_inverse_table(
      view, {column_offsets.get(), query_block.get(), pair.get()}, workspace.get(), stream.view());
  EXPECT_EQ(inverse.column_offsets, column_offsets.get());
  EXPECT_EQ(inverse.query_block, query_block.get());
  EXPECT_EQ(inverse.pair, pair.get());

  const Inverse expected = inverse_of(table);
  EXPECT_EQ(column_offsets.download(), expected.column_offsets);
  EXPECT_EQ(query_block.untouched_from(pairs), kSpare);
  EXPECT_EQ(pair.untouched_from(pairs), kSpare);
  auto queries = query_block.download(), places = pair.download();
  queries.resize(pairs);
  places.resize(pairs);
  EXPECT_EQ(queries, expected.query_block);
  EXPECT_EQ(places, expected.pair);

  DeviceArray<unsigned char> bitmap(need_bitmap_bytes(view));
  mark_needed_blocks(view, bitmap.get(), stream.view());
  std::vector<unsigned char> bits(bitmap.size(), 0);
  for (int64_t column = 0; column < view.columns(); ++column) {
    if (expected.column_offsets[column] == expected.column_offsets[column + 1]) continue;
    bits[column / 8] |= static_cast<unsigned char>(1u << (column % 8));
  }
  EXPECT_EQ(bitmap.download(), bits);
}

TEST(InverseTableDeviceTest, ListsTheSamePairsByBlock) {
  expect_inverse(random_table(1, 1, 1, 1, 1));
  expect_inverse(random_table(2, 3, 33, 17, 4));   // a chunk of 32 rows and one row
  expect_inverse(random_table(1, 2, 64, 40, 2));   // whole chunks
  expect_inverse(random_table(3, 1, 7, 300, 30));  // more columns than threads, few of them listed
  expect_inverse(random_table(1, 2, 40, 257, 500));
}

TEST(InverseTableDeviceTest, OfEverythingAndOfNothing) {
  expect_inverse(make_dense_table(1, 2, 35, 70));
  expect_inverse(SegmentTable{2, 2, 5, 9, std::vector<int64_t>(21, 0), {}});
  expect_inverse(SegmentTable{2, 2, 0, 9, {0}, {}});
  expect_inverse(SegmentTable{2, 2, 3, 0, std::vector<int64_t>(13, 0), {}});
  expect_inverse(SegmentTable{0, 2, 3, 9, {0}, {}});
}

TEST(InverseTableDeviceTest, SaysWhatDoesNotFit) {
  const CudaStream stream;
  DeviceTable table;
  table.batch = table.heads = table.query_blocks = 1;
  table.kv_blocks = 1 << 20;
  EXPECT_THROW(build_inverse_table(table, {}, nullptr, stream.view()), InternalError);
  table.max_pairs = int64_t{1} << 31;
  EXPECT_THROW(build_inverse_table(table, {}, nullptr, stream.view()), InternalError);
}

}  // namespace
}  // namespace sprocket::kernels::cuda
