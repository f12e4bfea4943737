#include "kernels/cuda/block_pooling.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "base/error.h"
#include "base/philox.h"
#include "kernels/block_pooling.h"
#include "tests/kernels/cuda/device_array.h"

namespace sprocket::kernels::cuda {
namespace {

const std::vector<int64_t> kOffsets{3, 3, 67, 68, 68, 91};
constexpr int kBlocks = 5, kRows = 91, kBatch = 2, kHeads = 3;

std::vector<float> normal_values(int64_t count, uint64_t sample) {
  std::vector<float> values(count);
  RandomStream(7, 0, sample, RandomPurpose::kTest).normal(values);
  return values;
}

// A tensor [batch, rows, heads, head_dim] whose heads lie `width` elements apart.
struct Shape {
  int head_dim;
  int64_t width;
  int64_t elements() const { return kBatch * kRows * kHeads * width; }
  int64_t means(int64_t pieces) const { return kBatch * kHeads * pieces * head_dim; }
  template <class T>
  HeadView<T> view(T* data) const {
    return {data, kRows * kHeads * width, kHeads * width, width};
  }
  HeadView<const void> untyped(const void* data) const {
    return {data, kRows * kHeads * width, kHeads * width, width};
  }
};
// Of aligned vectors, of rows that are not, and of a dimension that no vector divides.
const Shape kShapes[] = {{64, 64}, {16, 18}, {19, 21}, {1, 1}};

// fp16 values, as the bits of each and as floats.
struct Half {
  std::vector<uint16_t> bits;
  std::vector<float> values;
};
Half half_values(int64_t count) {
  Half half;
  for (int64_t i = 0; i < count; ++i) {
    const int exponent = static_cast<int>(i * 7 % 12) + 9,
              fraction = static_cast<int>(i * 613 % 1024);
    const int sign = static_cast<int>(i % 3 == 1);
    half.bits.push_back(static_cast<uint16_t>(sign << 15 | exponent << 10 | fraction));
    const double size = std::ldexp(1 + fraction / 1024.0, exponent - 15);
    half.values.push_back(static_cast<float>(sign ? -size : size));
  }
  return half;
}

template <class T>
std::vector<float> host_means(const Shape& shape, const std::vector<T>& x) {
  std::vector<float> means(shape.means(kBlocks));
  pool_blocks<T>(shape.view(x.data()), kOffsets, kBatch, kHeads, shape.head_dim, means.data(), 1);
  return means;
}

TEST(BlockPoolingDeviceTest, EqualsTheHostBitByBit) {
  const CudaStream stream;
  DeviceArray<int64_t> offsets(kOffsets);
  for (const Shape& shape : kShapes) {
    const auto values = normal_values(shape.elements(), 1);
    const Half half = half_values(shape.elements());
    DeviceArray<float> single(values);
    DeviceArray<BFloat16> bfloat(std::vector<BFloat16>(values.begin(), values.end()));
    DeviceArray<uint16_t> sixteen(half.bits);
    const auto pooled = [&](const void* x, DType dtype) {
      DeviceArray<float> means(shape.means(kBlocks));
      pool_blocks(shape.untyped(x), dtype, offsets.get(), kBlocks, kBatch, kHeads, shape.head_dim,
                  means.get(), stream.view());
      return means.download();
    };
    EXPECT_EQ(pooled(single.get(), DType::kF32), host_means(shape, values)) << shape.head_dim;
    EXPECT_EQ(pooled(bfloat.get(), DType::kBF16), host_means(shape, bfloat.download()));
    EXPECT_EQ(pooled(sixteen.get(), DType::kF16), host_means(shape, half.values));
  }
}

TEST(BlockPoolingDeviceTest, MeansOfPartsEqualTheHost) {
  const CudaStream stream;
  DeviceArray<int64_t> offsets(kOffsets);
  for (const Shape& shape : kShapes) {
    const auto values = normal_values(shape.elements(), 2);
    DeviceArray<float> x(values);
    for (const int parts : {1, 4, 8}) {
      std::vector<float> expected(shape.means(kBlocks * parts));
      pool_sub_blocks<float>(shape.view(values.data()), kOffsets, parts, 64, kBatch, kHeads,
                             shape.head_dim, expected.data(), 1);
      DeviceArray<float> means(shape.means(kBlocks * parts));
      pool_sub_blocks(shape.untyped(x.get()), DType::kF32, offsets.get(), kBlocks, parts, 64,
                      kBatch, kHeads, shape.head_dim, means.get(), stream.view());
      EXPECT_EQ(means.download(), expected) << shape.head_dim << " " << parts;
    }
  }
}

TEST(BlockPoolingDeviceTest, GradientAddsAsOnTheHost) {
  const CudaStream stream;
  DeviceArray<int64_t> offsets(kOffsets);
  for (const Shape& shape : kShapes) {
    std::vector<float> expected = normal_values(shape.elements(), 3);
    const auto gradient = normal_values(shape.means(kBlocks), 4);
    DeviceArray<float> dx(expected), dmeans(gradient);
    add_pooling_gradient<float>(gradient.data(), kOffsets, kBatch, kHeads, shape.head_dim,
                                shape.view(expected.data()), 1);
    add_pooling_gradient(dmeans.get(), offsets.get(), kBlocks, kBatch, kHeads, shape.head_dim,
                         shape.view(dx.get()), stream.view());
    EXPECT_EQ(dx.download(), expected) << shape.head_dim;
  }
}

TEST(BlockPoolingDeviceTest, NothingToPool) {
  const CudaStream stream;
  DeviceArray<int64_t> offsets(std::vector<int64_t>{0});
  pool_blocks({}, DType::kBF16, offsets.get(), 0, 1, 2, 64, nullptr, stream.view());
  add_pooling_gradient(nullptr, offsets.get(), 0, 1, 2, 64, {}, stream.view());
  check_cuda(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
  EXPECT_THROW(pool_blocks({}, DType::kF64, offsets.get(), 1, 1, 2, 64, nullptr, stream.view()),
               InternalError);
}

}  // namespace
}  // namespace sprocket::kernels::cuda
