#include "kernels/cuda/pyramid.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/error.h"
#include "base/philox.h"
#include "kernels/block_samples.h"
#include "kernels/isa.h"
#include "kernels/level_selection.h"
#include "kernels/pyramid.h"
#include "tests/kernels/cuda/device_array.h"

namespace sprocket::kernels::cuda {
namespace {

constexpr int kBatch = 2, kHeads = 2;
const std::vector<int64_t> kOffsets{0, 16, 16, 17, 30, 37};
const std::vector<int> kWidths{1, 2, 4, 8};

std::vector<float> normal_values(int64_t count, uint64_t sample) {
  std::vector<float> values(count);
  RandomStream(17, 0, sample, RandomPurpose::kTest).normal(values);
  return values;
}

// Neighbours are alike, in some blocks more than in others.
std::vector<float> smooth_values(int64_t rows, int64_t width, uint64_t sample) {
  std::vector<float> values = normal_values(rows * width, sample);
  for (int64_t row = 1; row < rows; ++row) {
    const float own = row % 40 < 18 ? 0.05f : 0.7f;
    for (int64_t i = 0; i < width; ++i) {
      float& value = values[row * width + i];
      value = row % 11 == 0 ? value : own * value + values[(row - 1) * width + i];
    }
  }
  return values;
}

HeadView<const void> read(const void* data, int64_t rows, int head_dim) {
  return {data, rows * kHeads * head_dim, kHeads * head_dim, head_dim};
}

struct Pyramid {
  Pyramid()
      : layout(make_pyramid_layout(kOffsets, kWidths)), offsets(kOffsets), first_rows(firsts()) {
    rows.blocks = layout.blocks();
    rows.levels = layout.levels();
    std::copy(kWidths.begin(), kWidths.end(), rows.widths);
    rows.block_offsets = offsets.get();
    rows.first_rows = first_rows.get();
  }
  std::vector<int64_t> firsts() const {
    std::vector<int64_t> result;
    for (int block = 0; block < layout.blocks(); ++block) result.push_back(layout.first_row(block));
    return result;
  }
  PyramidLayout layout;
  DeviceArray<int64_t> offsets, first_rows;
  DevicePyramidRows rows;
};

template <class T>
void expect_same_rows(int head_dim) {
  const CudaStream stream;
  Pyramid pyramid;
  const int64_t tokens = kOffsets.back(), rows = pyramid.layout.rows();
  const auto values = normal_values(kBatch * tokens * kHeads * head_dim, 1);
  const std::vector<T> x(values.begin(), values.end());
  std::vector<T> expected(kBatch * rows * kHeads * head_dim);
  kernels::expand_pyramid<T>(contiguous_view<const T>(x.data(), tokens, kHeads, head_dim),
                             pyramid.layout, kBatch, kHeads, head_dim,
                             contiguous_view<T>(expected.data(), rows, kHeads, head_dim), 1);
  DeviceArray<T> x_device(x), extended(static_cast<int64_t>(expected.size()));
  expand_pyramid(read(x_device.get(), tokens, head_dim), kDTypeOf<T>, pyramid.rows, kBatch, kHeads,
                 head_dim, {extended.get(), rows * kHeads * head_dim, kHeads * head_dim, head_dim},
                 stream.view());
  const auto found = extended.download();
  int64_t different = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    different += static_cast<float>(found[i]) != static_cast<float>(expected[i]);
  }
  EXPECT_EQ(different, 0);
}

TEST(PyramidDeviceTest, RowsEqualTheHostBitByBit) {
  expect_same_rows<float>(33);
  expect_same_rows<BFloat16>(16);
}

TEST(PyramidDeviceTest, GradientAddsAsOnTheHost) {
  const CudaStream stream;
  constexpr int kDim = 33;
  Pyramid pyramid;
  const int64_t tokens = kOffsets.back(), rows = pyramid.layout.rows();
  const auto gradient = normal_values(kBatch * rows * kHeads * kDim, 2);
  std::vector<float> expected = normal_values(kBatch * tokens * kHeads * kDim, 3);
  DeviceArray<float> gradient_device(gradient), dx(expected);
  kernels::add_pyramid_gradient<float>(
      contiguous_view<const float>(gradient.data(), rows, kHeads, kDim), pyramid.layout, kBatch,
      kHeads, kDim, contiguous_view<float>(expected.data(), tokens, kHeads, kDim), 1);
  add_pyramid_gradient(contiguous_view<const float>(gradient_device.get(), rows, kHeads, kDim),
                       pyramid.rows, kBatch, kHeads, kDim,
                       contiguous_view<float>(dx.get(), tokens, kHeads, kDim), stream.view());
  EXPECT_EQ(dx.download(), expected);
}

template <class T>
void expect_same_caps(std::vector<T> k, int head_dim) {
  ASSERT_NE(current_isa(), Isa::kBaseline);  // whose products have other bits
  const CudaStream stream;
  Pyramid pyramid;
  const std::vector<double> thresholds{0.7, 0.65, 0.6};
  std::vector<uint8_t> expected(kBatch * kHeads * pyramid.layout.blocks());
  kernels::similarity_caps<T>(contiguous_view<const T>(k.data(), kOffsets.back(), kHeads, head_dim),
                              kOffsets, kBatch, kHeads, head_dim, kWidths, thresholds,
                              expected.data(), 1);
  DeviceArray<T> k_device(k);
  DeviceArray<uint8_t> caps(static_cast<int64_t>(expected.size()));
  similarity_caps(read(k_device.get(), kOffsets.back(), head_dim), kDTypeOf<T>, pyramid.rows, 16,
                  {{0.7, 0.65, 0.6}}, kBatch, kHeads, head_dim, caps.get(), stream.view());
  EXPECT_EQ(caps.download(), expected);
}

TEST(PyramidDeviceTest, CapsAsOnTheHost) {
  const int64_t rows = kBatch * kOffsets.back();
  for (const int head_dim : {16, 21}) {
    auto k = smooth_values(rows, kHeads * head_dim, 4);
    expect_same_caps(std::vector<BFloat16>(k.begin(), k.end()), head_dim);
    expect_same_caps(k, head_dim);
    std::fill(k.begin(), k.begin() + 5 * kHeads * head_dim, 0.0f);
    k[20 * kHeads * head_dim] = NAN;
    expect_same_caps(k, head_dim);
  }
}

TEST(PyramidDeviceTest, SamplesAreTheTokensOfTheirRows) {
  const CudaStream stream;
  constexpr int kDim = 9, kHeadNumbers[] = {0, 3};
  const auto values = normal_values(kBatch * kOffsets.back() * kHeads * kDim, 5);
  const std::vector<BFloat16> x(values.begin(), values.end());
  const BlockSamples samples =
      sample_blocks(kOffsets, 0, static_cast<int>(kOffsets.size()) - 1, kHeadNumbers, 4, {7, 1, 2});
  const int64_t slots = int64_t{samples.blocks} * samples.samples;
  std::vector<float> expected(kBatch * kHeads * slots * kDim);
  kernels::gather_samples<BFloat16>(
      contiguous_view<const BFloat16>(x.data(), kOffsets.back(), kHeads, kDim), samples, kBatch,
      kDim, expected.data(), 1);
  DeviceArray<BFloat16> x_device(x);
  DeviceArray<int32_t> rows(samples.rows);
  DeviceArray<float> out(static_cast<int64_t>(expected.size()));
  gather_samples(read(x_device.get(), kOffsets.back(), kDim), DType::kBF16, rows.get(), slots,
                 kBatch, kHeads, kDim, out.get(), stream.view());
  EXPECT_EQ(out.download(), expected);
}

TEST(PyramidDeviceTest, SaysWhichPyramidIsNone) {
  const CudaStream stream;
  DevicePyramidRows rows;
  rows.levels = kMostLevels + 1;
  EXPECT_THROW(add_pyramid_gradient({}, rows, 1, 1, 4, {}, stream.view()), InternalError);
}

}  // namespace
}  // namespace sprocket::kernels::cuda
