#include "kernels/cuda/optimizer.h"

#include <limits>
#include <memory>
#include <optional>

#include "base/error.h"
#include "kernels/elementwise.h"
#include "tests/kernels/cuda/element_testing.h"

namespace sprocket::kernels::cuda {
namespace {

constexpr int kSteps = 3;

AdamWStep step_number(int64_t number) {
  AdamWStep step;
  step.learning_rate = 1e-2;
  step.beta2 = 0.95;
  step.weight_decay = 0.1;
  step.gradient_scale = 0.25;
  step.step = number;
  return step;
}

template <class A>
struct HostTensor {
  std::vector<A> parameter, mean, square;
  HostTensor(int64_t count, uint64_t sample)
      : parameter(converted<A>(normal_values(count, sample))), mean(count), square(count) {}
  void update(const AdamWStep& step, const Doubles& gradient) {
    const auto g = converted<A>(gradient);
    kernels::adamw_update<A>(step, g.data(), static_cast<int64_t>(g.size()), parameter.data(),
                             mean.data(), square.data(), 1);
  }
};

// A tensor in device memory, `shift` elements away from an address that suits vectors.
template <class T>
struct DeviceTensor {
  int64_t count, shift;
  Elements<float> gradient, parameter, mean, square;
  Elements<T> copy;
  bool has_copy;

  DeviceTensor(int64_t elements, int64_t shifted, uint64_t sample, bool copied)
      : count(elements),
        shift(shifted),
        gradient(elements + shifted),
        parameter(padded(normal_values(elements, sample))),
        mean(Doubles(elements + shifted)),
        square(Doubles(elements + shifted)),
        copy(elements + shifted),
        has_copy(copied) {}
  Doubles padded(const Doubles& values) const {
    Doubles result(shift, 5.0);
    result.insert(result.end(), values.begin(), values.end());
    return result;
  }
  AdamWTensor<T> view() {
    return {gradient.get() + shift,
            parameter.get() + shift,
            mean.get() + shift,
            square.get() + shift,
            has_copy ? copy.get() + shift : nullptr,
            count};
  }
  void set_gradient(const Doubles& values) {
    const auto floats = converted<float>(values);
    check_cuda(cudaMemcpy(gradient.get() + shift, floats.data(), floats.size() * sizeof(float),
                          cudaMemcpyHostToDevice),
               "cudaMemcpy");
    check_cuda(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
  }
  template <class E>
  auto after_shift(E& elements) {
    auto values = elements.download();
    values.erase(values.begin(), values.begin() + shift);
    return values;
  }
};

template <class T>
std::vector<std::unique_ptr<DeviceTensor<T>>> run(const std::vector<int64_t>& counts,
                                                  const float* scale, StreamView stream) {
  std::vector<std::unique_ptr<DeviceTensor<T>>> tensors;
  std::vector<AdamWTensor<T>> views;
  for (size_t i = 0; i < counts.size(); ++i) {
    // Every second one misaligned, every third one without a copy.
    tensors.push_back(std::make_unique<DeviceTensor<T>>(counts[i], i % 2, i, i % 3 != 2));
    views.push_back(tensors.back()->view());
  }
  DeviceArray<AdamWTensor<T>> device_views(views);
  const std::vector<TensorChunk> chunks = tensor_chunks(counts);
  DeviceArray<TensorChunk> device_chunks(chunks);
  for (int number = 1; number <= kSteps; ++number) {
    for (size_t i = 0; i < counts.size(); ++i) {
      tensors[i]->set_gradient(normal_values(counts[i], 100 * number + i));
    }
    adamw_update<T>(step_number(number), device_views.get(), device_chunks.get(),
                    static_cast<int64_t>(chunks.size()), scale, stream);
    check_cuda(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
  }
  return tensors;
}

const std::vector<int64_t> kCounts{8192, 1, 7, 16, 8200, 3000, 0};

template <class T>
class AdamWDeviceTest : public testing::Test {};
using Copies = testing::Types<__nv_bfloat16, __half>;
TYPED_TEST_SUITE(AdamWDeviceTest, Copies);

TYPED_TEST(AdamWDeviceTest, UpdatesEveryTensorAsAccuratelyAsTheHost) {
  using T = TypeParam;
  CudaStream stream;
  const auto tensors = run<T>(kCounts, nullptr, stream.view());
  for (size_t i = 0; i < kCounts.size(); ++i) {
    SCOPED_TRACE(testing::Message() << "tensor " << i);
    HostTensor<double> exact(kCounts[i], i);
    HostTensor<float> reference(kCounts[i], i);
    for (int number = 1; number <= kSteps; ++number) {
      const Doubles gradient = normal_values(kCounts[i], 100 * number + i);
      exact.update(step_number(number), gradient);
      reference.update(step_number(number), gradient);
    }
    const auto parameter = tensors[i]->after_shift(tensors[i]->parameter);
    if (kCounts[i] >= 1000) {  // enough elements for a comparison of errors
      expect_as_accurate(converted<double>(parameter), converted<double>(reference.parameter),
                         exact.parameter);
      expect_as_accurate(converted<double>(tensors[i]->after_shift(tensors[i]->mean)),
                         converted<double>(reference.mean), exact.mean);
      expect_as_accurate(converted<double>(tensors[i]->after_shift(tensors[i]->square)),
                         converted<double>(reference.square), exact.square);
    }
    for (int64_t k = 0; k < kCounts[i]; ++k) {
      // A dozen roundings a step of values below 6.
      ASSERT_NEAR(parameter[k], exact.parameter[k],
                  60 * 0x1p-24 * (1 + std::abs(exact.parameter[k])));
    }
    const auto copy = tensors[i]->after_shift(tensors[i]->copy);
    if (tensors[i]->has_copy) {
      EXPECT_TRUE(same_bits(copy, converted<HostOf<T>>(parameter)));
    } else {
      for (const double value : converted<double>(copy)) ASSERT_TRUE(std::isnan(value));
    }
    if (i % 2 == 1) {  // the element before the first
      EXPECT_EQ(tensors[i]->parameter.download()[0], 5.0f);
    }
  }
}

TYPED_TEST(AdamWDeviceTest, TwoRunsAreBitwiseEqual) {
  CudaStream stream;
  const auto one = run<TypeParam>({9000, 33}, nullptr, stream.view());
  const auto two = run<TypeParam>({9000, 33}, nullptr, stream.view());
  for (int i = 0; i < 2; ++i) {
    EXPECT_TRUE(same_bits(one[i]->parameter.download(), two[i]->parameter.download()));
    EXPECT_TRUE(same_bits(one[i]->square.download(), two[i]->square.download()));
  }
}

// A factor in device memory does what a smaller gradient does: exactly, for a power of two.
TEST(AdamWDeviceTest, TakesTheGradientScaleFromTheDevice) {
  CudaStream stream;
  DeviceArray<float> quarter(std::vector<float>{0.25f});
  const auto scaled = run<__nv_bfloat16>({100}, quarter.get(), stream.view());
  HostTensor<float> reference(100, 0);
  for (int number = 1; number <= kSteps; ++number) {
    Doubles gradient = normal_values(100, 100 * number);
    for (double& value : gradient) value *= 0.25;
    reference.update(step_number(number), gradient);
  }
  const auto found = scaled[0]->parameter.download();
  for (int i = 0; i < 100; ++i) {
    EXPECT_NEAR(found[i], reference.parameter[i], 60 * 0x1p-24 * (1 + std::abs(found[i])));
  }
}

TEST(TensorChunksTest, CoverEveryTensorOnce) {
  EXPECT_TRUE(tensor_chunks({}).empty());
  const auto chunks = tensor_chunks({0, kAdamWChunk, 1, 2 * kAdamWChunk + 1});
  ASSERT_EQ(chunks.size(), 5u);
  const int expected[5][2] = {{1, 0}, {2, 0}, {3, 0}, {3, 1}, {3, 2}};
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(chunks[i].tensor, expected[i][0]);
    EXPECT_EQ(chunks[i].chunk, expected[i][1]);
  }
}

double sum_on_device(const Doubles& values, StreamView stream) {
  const auto count = static_cast<int64_t>(values.size());
  Elements<float> array(values);
  DeviceArray<double> sum(1);
  WorkspaceMemory workspace(sum_of_squares_workspace_bytes(count));
  sum_of_squares(array.get(), count, sum.get(), workspace.view(), stream);
  return sum.download()[0];
}

TEST(SumOfSquaresDeviceTest, IsADoubleSum) {
  CudaStream stream;
  for (const int64_t count : {0, 1, 15, 16384, 16385, 40000}) {
    const Doubles values = normal_values(count, 1);
    double expected = 0;
    for (const double value : values) expected += value * value;
    const double found = sum_on_device(values, stream.view());
    EXPECT_NEAR(found, expected, static_cast<double>(count) * 0x1p-53 * (expected + 1)) << count;
    EXPECT_EQ(found, sum_on_device(values, stream.view()));
  }
  EXPECT_DOUBLE_EQ(sum_on_device(Doubles(3, double{3e38f}), stream.view()),
                   3 * double{3e38f} * double{3e38f});
}

TEST(ClipScaleDeviceTest, LeavesSmallNormsAlone) {
  CudaStream stream;
  const auto scale_of = [&](double squares) {
    DeviceArray<double> sum(std::vector<double>{squares});
    DeviceArray<float> scale(1);
    clip_scale(sum.get(), 2.0, scale.get(), stream.view());
    return scale.download()[0];
  };
  EXPECT_EQ(scale_of(4.0), 1.0f);
  EXPECT_EQ(scale_of(0.0), 1.0f);
  EXPECT_EQ(scale_of(64.0), 0.25f);
  EXPECT_EQ(scale_of(9.0), static_cast<float>(2.0 / 3.0));
  EXPECT_EQ(scale_of(std::numeric_limits<double>::quiet_NaN()), 1.0f);
}

}  // namespace
}  // namespace sprocket::kernels::cuda
