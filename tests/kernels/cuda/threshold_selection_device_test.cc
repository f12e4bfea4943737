#include "kernels/cuda/threshold_selection.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "base/error.h"
#include "base/philox.h"
#include "kernels/isa.h"
#include "kernels/lane_exp.h"
#include "kernels/threshold_selection.h"
#include "tests/kernels/cuda/device_array.h"

namespace sprocket::kernels::cuda {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

std::vector<float> normal_values(int64_t count, uint64_t sample, float factor) {
  std::vector<float> values(count);
  RandomStream(5, 0, sample, RandomPurpose::kTest).normal(values);
  for (float& value : values) value *= factor;
  return values;
}

struct Shape {
  int batch, heads, query_blocks, kv_blocks, head_dim, first_query_block = 0, prefix_blocks = 0;
};

void expect_same_table(const Shape& shape, ThresholdSpec spec, const std::vector<float>& q,
                       const std::vector<float>& k) {
  ASSERT_NE(current_isa(), Isa::kBaseline);  // whose scores and masses have other bits
  const CudaStream stream;
  spec.first_query_block = shape.first_query_block;
  spec.prefix_blocks = shape.prefix_blocks;
  const double scale = 1 / std::sqrt(static_cast<double>(shape.head_dim));
  const SegmentTable expected =
      kernels::select_by_threshold(q.data(), k.data(), shape.batch, shape.heads, shape.query_blocks,
                                   shape.kv_blocks, shape.head_dim, scale, spec, 1);
  DeviceArray<float> q_device(q), k_device(k);
  const DeviceCoarseProblem problem{shape.batch,
                                    shape.heads,
                                    shape.query_blocks,
                                    shape.kv_blocks,
                                    shape.head_dim,
                                    scale,
                                    q_device.get(),
                                    k_device.get(),
                                    nullptr,
                                    shape.first_query_block,
                                    shape.prefix_blocks};
  const int video = shape.kv_blocks - shape.prefix_blocks;
  const int64_t pairs = static_cast<int64_t>(expected.kv_block.size());
  DeviceArray<int32_t> row_offsets(expected.rows() + 1), kv_block(most_pairs(problem));
  DeviceArray<char> workspace(threshold_workspace_bytes(problem));
  const DeviceTable table =
      select_by_threshold(problem, threshold_bounds(spec, video, video),
                          {row_offsets.get(), kv_block.get()}, workspace.get(), stream.view());
  EXPECT_EQ(table.max_pairs, kv_block.size());
  const auto offsets = row_offsets.download();
  EXPECT_EQ(std::vector<int64_t>(offsets.begin(), offsets.end()), expected.row_offsets);
  EXPECT_EQ(kv_block.untouched_from(pairs), kv_block.size() - pairs);
  auto ids = kv_block.download();
  ids.resize(pairs);
  EXPECT_EQ(ids, expected.kv_block);
}

void expect_same_table(const Shape& shape, const ThresholdSpec& spec, float factor) {
  const int64_t batch_heads = int64_t{shape.batch} * shape.heads;
  expect_same_table(shape, spec,
                    normal_values(batch_heads * shape.query_blocks * shape.head_dim, 1, factor),
                    normal_values(batch_heads * shape.kv_blocks * shape.head_dim, 2, factor));
}

// Rows of given scores: queries of 1 in one dimension.
void expect_same_rows(const ThresholdSpec& spec, const std::vector<std::vector<float>>& rows) {
  for (const auto& row : rows) {
    const int blocks = static_cast<int>(row.size());
    expect_same_table({1, 1, 1, blocks, 1}, spec, {1.0f}, row);
  }
}

std::vector<std::vector<float>> special_rows() {
  std::vector<std::vector<float>> rows{std::vector<float>(37, 0.25f),
                                       std::vector<float>(9, -kInf),
                                       std::vector<float>(9, kNan),
                                       {0, 1, 2, kNan, 3, 4, -kInf, 5},
                                       {0, kInf, 1, kInf, kNan, 2, kInf, 0, 1},
                                       {-0.0f, 0, -0.0f, 0, 0, 0, 1, 0},
                                       {90, 1, 1, 1, 1, 1, -90, 1, 1, 1, 1}};
  std::vector<float> steps(67);  // equal masses in groups: sums land on the target
  for (size_t i = 0; i < steps.size(); ++i) steps[i] = static_cast<float>(i % 4) * 0.6931472f;
  rows.push_back(steps);
  std::vector<float> close(130);  // all in one bucket, all different
  for (size_t i = 0; i < close.size(); ++i) close[i] = 1e-4f * static_cast<float>(i * 37 % 130);
  rows.push_back(close);
  return rows;
}

ThresholdSpec mass_rule(double tau, int least) {
  ThresholdSpec spec;
  spec.rule = ThresholdRule::kMass;
  spec.tau = tau;
  spec.min_blocks = least;
  return spec;
}
ThresholdSpec value_rule(const char* sparsity, int least) {
  ThresholdSpec spec;
  spec.rule = ThresholdRule::kValue;
  spec.sparsity = Decimal::parse(sparsity);
  spec.min_blocks_value = least;
  return spec;
}

TEST(ThresholdSelectionDeviceTest, MassRuleAsOnTheHost) {
  for (const float factor : {0.01f, 1.0f, 3.0f}) {
    for (const double tau : {0.2, 0.9, 0.999}) {
      expect_same_table({1, 2, 9, 70, 16}, mass_rule(tau, 4), factor);
    }
  }
  expect_same_table({2, 1, 5, 37, 20, 3, 5}, mass_rule(0.8, 1), 1);
  expect_same_table({1, 1, 4, 37, 20, 0, 6}, mass_rule(0.8, 1), 1);  // prefix rows alone
  expect_same_table({1, 1, 3, 33, 8}, mass_rule(1, 1), 1);           // everything
  expect_same_table({1, 1, 3, 33, 8}, mass_rule(0.5, 40), 1);        // fewer than the least
  expect_same_table({1, 1, 3, 5, 8, 1, 5}, mass_rule(0.5, 1), 1);    // no video block
}

TEST(ThresholdSelectionDeviceTest, MassRuleOnSpecialRows) {
  for (const double tau : {0.25, 0.5, 0.9}) {
    expect_same_rows(mass_rule(tau, 1), special_rows());
    expect_same_rows(mass_rule(tau, 6), special_rows());
  }
}

// The score whose mass is 1 / 2 beside a score of 0.
float half_mass_score() {
  float score = -0.6931472f;
  while (exp_of_lane(score) < 0.5f) score = std::nextafter(score, 0.0f);
  while (exp_of_lane(score) > 0.5f) score = std::nextafter(score, -1.0f);
  return score;
}

// Sums that land exactly on the target: inside a bucket, and at the end of one.
TEST(ThresholdSelectionDeviceTest, MassesThatLandOnTheTarget) {
  ASSERT_EQ(exp_of_lane(half_mass_score()), 0.5f);
  std::vector<float> halves(12, half_mass_score());
  for (size_t i = 0; i < 4; ++i) halves[i * 3] = 0;
  const std::vector<std::vector<float>> rows{std::vector<float>(36, 0.25f), halves};
  expect_same_rows(mass_rule(0.25, 1), rows);
  expect_same_rows(mass_rule(0.5, 1), rows);
}

TEST(ThresholdSelectionDeviceTest, ValueRuleAsOnTheHost) {
  for (const char* sparsity : {"0.5", "0.9", "1", "0"}) {
    expect_same_table({1, 2, 9, 70, 16}, value_rule(sparsity, 1), 1);
    expect_same_table({2, 1, 5, 37, 20, 3, 5}, value_rule(sparsity, 3), 2);
  }
}

TEST(ThresholdSelectionDeviceTest, ValueRuleOnSpecialRows) {
  for (const char* sparsity : {"0.3", "0.75"}) {
    expect_same_rows(value_rule(sparsity, 1), special_rows());
    expect_same_rows(value_rule(sparsity, 5), special_rows());
  }
}

TEST(ThresholdSelectionDeviceTest, NoRows) {
  expect_same_table({2, 3, 0, 5, 4}, mass_rule(0.5, 1), 1);
}

}  // namespace
}  // namespace sprocket::kernels::cuda
