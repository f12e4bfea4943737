#include "kernels/cuda/score_selection.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "base/philox.h"
#include "kernels/level_selection.h"
#include "kernels/mass_selection.h"
#include "kernels/pyramid.h"
#include "kernels/segment_table.h"
#include "tests/kernels/cuda/device_array.h"

namespace sprocket::kernels::cuda {
namespace {

struct Shape {
  int batch, heads, query_blocks, kv_blocks, first_query_block = 0, prefix_blocks = 0;
  int video() const { return kv_blocks - prefix_blocks; }
  int64_t rows() const { return int64_t{batch} * heads * query_blocks; }
  bool is_prefix(int64_t row) const {
    return first_query_block + row % query_blocks < prefix_blocks;
  }
};
const Shape kShapes[] = {{2, 2, 7, 37, 3, 5}, {1, 1, 3, 64}, {1, 2, 4, 9, 0, 6}, {1, 1, 2, 1}};

// Sampled scores lie in [0, 1]; many are saturated, and a diverged model has some that are no
// numbers.
std::vector<float> scores_of(const Shape& shape, int kind) {
  std::vector<float> scores(shape.rows() * shape.video());
  RandomStream(9, 0, static_cast<uint64_t>(kind), RandomPurpose::kTest).normal(scores);
  for (size_t i = 0; i < scores.size(); ++i) {
    float& score = scores[i];
    score = std::exp(-std::abs(score * (kind == 0 ? 1.0f : 3.0f)));
    if (kind == 1) score = std::ceil(score * 4) / 4;
    if (kind == 2) score = 0;
    if (kind == 3 && i % 7 == 0) score = std::numeric_limits<float>::quiet_NaN();
    if (kind == 4) score = i % 3 == 0 ? 1.0f : 1e-12f;
  }
  return scores;
}
constexpr int kKinds = 5;

DeviceScores on_device(const Shape& shape, DeviceArray<float>& scores) {
  return {shape.batch,
          shape.heads,
          shape.query_blocks,
          shape.kv_blocks,
          shape.first_query_block,
          shape.prefix_blocks,
          scores.get()};
}

// select(row, ids) appends a video row's ids.
template <class Select>
SegmentTable host_table(const Shape& shape, int kv_blocks, Select select) {
  SegmentTable table{shape.batch, shape.heads, shape.query_blocks, kv_blocks, {0}, {}};
  for (int64_t row = 0; row < shape.rows(); ++row) {
    select(row, table.kv_block);
    table.row_offsets.push_back(static_cast<int64_t>(table.kv_block.size()));
  }
  return table;
}

void expect_table(const SegmentTable& expected, DeviceArray<int32_t>& row_offsets,
                  DeviceArray<int32_t>& kv_block) {
  const auto offsets = row_offsets.download();
  const int64_t pairs = static_cast<int64_t>(expected.kv_block.size());
  EXPECT_EQ(std::vector<int64_t>(offsets.begin(), offsets.end()), expected.row_offsets);
  ASSERT_LE(pairs, kv_block.size());
  EXPECT_EQ(kv_block.untouched_from(pairs), kv_block.size() - pairs);
  auto ids = kv_block.download();
  ids.resize(pairs);
  EXPECT_EQ(ids, expected.kv_block);
}

void expect_mass(const Shape& shape, const MassSelection& selection, int kind) {
  const CudaStream stream;
  const auto scores = scores_of(shape, kind);
  MassSelector<float> selector(selection, shape.video());
  const SegmentTable expected =
      host_table(shape, shape.kv_blocks, [&](int64_t row, std::vector<int32_t>& ids) {
        const int first = shape.is_prefix(row) ? shape.kv_blocks : shape.prefix_blocks;
        for (int32_t id = 0; id < first; ++id) ids.push_back(id);
        if (shape.is_prefix(row)) return;
        const auto begin = static_cast<int64_t>(ids.size());
        const std::span<const float> of_row(scores.data() + row * shape.video(), shape.video());
        for (const int32_t id : selector.select(of_row)) ids.push_back(shape.prefix_blocks + id);
        std::sort(ids.begin() + begin, ids.end());
      });
  DeviceArray<float> scores_device(scores);
  const DeviceScores problem = on_device(shape, scores_device);
  const MassBounds bounds = mass_bounds(selection, shape.video());
  DeviceArray<int32_t> row_offsets(shape.rows() + 1), kv_block(mass_pairs(problem, bounds));
  DeviceArray<char> workspace(mass_workspace_bytes(problem));
  select_by_mass(problem, bounds, {row_offsets.get(), kv_block.get()}, workspace.get(),
                 stream.view());
  expect_table(expected, row_offsets, kv_block);
}

TEST(ScoreSelectionDeviceTest, MassAsOnTheHost) {
  for (const Shape& shape : kShapes) {
    for (int kind = 0; kind < kKinds; ++kind) {
      for (const bool include_crossing : {false, true}) {
        MassSelection selection;
        selection.include_crossing = include_crossing;
        selection.mass = Decimal::parse(kind == 1 ? "0.5" : "0.95");
        selection.most = Decimal::parse("0.4");
        expect_mass(shape, selection, kind);
        selection.most = Decimal::parse("1");
        expect_mass(shape, selection, kind);
      }
    }
  }
}

void expect_levels(const Shape& shape, const LevelSelection& selection, bool capped, int kind) {
  const CudaStream stream;
  const std::vector<int> widths{1, 2, 4, 8};
  std::vector<int64_t> offsets{0};
  for (int block = 0; block < shape.kv_blocks; ++block) {
    offsets.push_back(offsets.back() + (block % 5 == 4 ? 7 : block % 7 == 6 ? 1 : 16));
  }
  const PyramidLayout layout = make_pyramid_layout(offsets, widths);
  const auto scores = scores_of(shape, kind);
  std::vector<uint8_t> caps(int64_t{shape.batch} * shape.heads * shape.kv_blocks);
  for (size_t i = 0; i < caps.size(); ++i) caps[i] = static_cast<uint8_t>(1 + i * 5 % 4);
  std::vector<uint8_t> levels(shape.rows() * shape.kv_blocks, 1);
  LevelAssigner<float> assigner(selection, shape.video());
  const SegmentTable expected =
      host_table(shape, layout.segments(), [&](int64_t row, std::vector<int32_t>& ids) {
        const std::span<uint8_t> of_row(levels.data() + row * shape.kv_blocks, shape.kv_blocks);
        if (!shape.is_prefix(row)) {
          std::span<const uint8_t> caps_of_row;
          if (capped) {
            caps_of_row = {
                caps.data() + row / shape.query_blocks * shape.kv_blocks + shape.prefix_blocks,
                static_cast<size_t>(shape.video())};
          }
          assigner.assign({scores.data() + row * shape.video(), static_cast<size_t>(shape.video())},
                          caps_of_row, of_row.subspan(shape.prefix_blocks));
        }
        for (int block = 0; block < shape.kv_blocks; ++block) {
          if (of_row[block] == 0) continue;
          const SegmentRange range = layout.segments_of(block, of_row[block]);
          for (int32_t i = 0; i < range.count; ++i) ids.push_back(range.first + i);
        }
      });

  std::vector<int32_t> ranges;
  for (const SegmentRange& range : layout.ranges) {
    ranges.push_back(range.first);
    ranges.push_back(range.count);
  }
  DeviceArray<float> scores_device(scores);
  DeviceArray<int32_t> ranges_device(ranges);
  DeviceArray<uint8_t> caps_device(caps), levels_device(static_cast<int64_t>(levels.size()));
  const DeviceScores problem = on_device(shape, scores_device);
  const DevicePyramid pyramid{layout.segments(), ranges_device.get()};
  DeviceArray<int32_t> row_offsets(shape.rows() + 1), kv_block(level_pairs(problem, pyramid));
  DeviceArray<char> workspace(level_workspace_bytes(problem, pyramid));
  select_levels(problem, level_bounds(selection, shape.video()), pyramid,
                capped ? caps_device.get() : nullptr, levels_device.get(),
                {row_offsets.get(), kv_block.get()}, workspace.get(), stream.view());
  expect_table(expected, row_offsets, kv_block);
  EXPECT_EQ(levels_device.download(), levels);
}

std::vector<Decimal> decimals(const std::vector<const char*>& texts) {
  std::vector<Decimal> values;
  for (const char* text : texts) values.push_back(Decimal::parse(text));
  return values;
}

TEST(ScoreSelectionDeviceTest, LevelsAsOnTheHost) {
  for (const Shape& shape : kShapes) {
    for (int kind = 0; kind < kKinds; ++kind) {
      for (const LevelRule rule : {LevelRule::kPaper, LevelRule::kCover, LevelRule::kQuota}) {
        LevelSelection selection;
        selection.rule = rule;
        selection.thresholds = decimals({"0.4", "0.5", "0.6", "0.8"});
        selection.quotas = decimals({"0.1", "0.05", "0", "0.2"});
        expect_levels(shape, selection, kind % 2 == 1, kind);
      }
    }
  }
}

}  // namespace
}  // namespace sprocket::kernels::cuda
