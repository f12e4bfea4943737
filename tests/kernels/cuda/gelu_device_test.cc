#include "base/error.h"
#include "kernels/cuda/elementwise.h"
#include "tests/kernels/cuda/element_testing.h"

namespace sprocket::kernels::cuda {
namespace {

// What storing in T adds: half a unit of the last place (8 and 11 significant bits), and half of
// the smallest number.
template <class T>
constexpr double kStored = 0;
template <>
constexpr double kStored<__nv_bfloat16> = 0x1p-8;
template <>
constexpr double kStored<__half> = 0x1p-11;
template <class T>
constexpr double kSmallest = std::is_same_v<T, __half> ? 0x1p-25 : 1e-37;

// The kernel's own error, relative to the result: as elementwise.h promises. `conditioning` is how
// an error of the argument grows in it.
template <class T>
double kernel_error(double conditioning) {
  return std::is_same_v<T, float> ? (6 + 4 * std::min(conditioning, 1e9)) * 0x1p-24 : 0x1p-17;
}

struct Expected {
  double value, slope, conditioning, change;
};

Expected expected_at(double x) {
  const double c = std::sqrt(2 / M_PI);
  const double u = c * (x + 0.044715 * x * x * x), share = 1 / (1 + std::exp(-2 * u));
  const double change =
      std::abs(x) > 24 ? 0 : x * share * (1 - share) * 2 * c * (1 + 3 * 0.044715 * x * x);
  return {x * share, share + change, share == 1 ? 0 : std::abs(2 * u) * (1 - share), change};
}

template <class T>
Doubles whole_range() {
  Doubles x;
  for (double value = -30; value < 30; value += 0.0625) x.push_back(value);
  for (const double value : {0.0, 1e-7, -1e-7, 60000.0, -60000.0}) x.push_back(value);
  if (!std::is_same_v<T, __half>) {
    for (const double value : {1e-30, -1e-30, 1e30, -1e30, 3e38, -3e38}) x.push_back(value);
  }
  return converted<double>(converted<HostOf<T>>(x));
}

template <class T>
class GeluDeviceTest : public testing::Test {};
TYPED_TEST_SUITE(GeluDeviceTest, DeviceElements);

TYPED_TEST(GeluDeviceTest, OverItsWholeRange) {
  using T = TypeParam;
  const Doubles x = whole_range<T>();
  const auto count = static_cast<int64_t>(x.size());
  CudaStream stream;
  Elements<T> input(x), output(count), gradient(Doubles(x.size(), 1.0));
  gelu_tanh<T>(input.get(), count, output.get(), stream.view());
  gelu_tanh_backward<T>(gradient.get(), input.get(), count, gradient.get(), stream.view());
  const Doubles found = output.doubles(), slope = gradient.doubles();
  for (size_t i = 0; i < x.size(); ++i) {
    const Expected e = expected_at(x[i]);
    ASSERT_NEAR(found[i], e.value,
                (kernel_error<T>(e.conditioning) + kStored<T>)*std::abs(e.value) + kSmallest<T>)
        << x[i];
    // The same argument for both terms of the slope, of which the second is at most about 1.
    const double u = std::min(std::abs(std::sqrt(2 / M_PI) * x[i]), 50.0);
    const double own = std::is_same_v<T, float> ? 40 * 0x1p-24 : 0x1p-16;
    ASSERT_NEAR(slope[i], e.slope,
                kStored<T> * std::abs(e.slope) + own * (1 + std::abs(e.change) * (1 + 2 * u)) +
                    kSmallest<T>)
        << x[i];
  }
}

// Every place of the end in an octet, less than one octet, more than one block of threads.
TYPED_TEST(GeluDeviceTest, AnyCount) {
  using T = TypeParam;
  CudaStream stream;
  for (const int64_t count : {0, 1, 7, 8, 9, 2047, 4096, 4099, 8200}) {
    const Doubles x = normal_values(count, 1), dy = normal_values(count, 2);
    Elements<T> input(x), in_place(x), output(count), gradient(dy), dx(count);
    gelu_tanh<T>(input.get(), count, output.get(), stream.view());
    gelu_tanh<T>(in_place.get(), count, in_place.get(), stream.view());
    gelu_tanh_backward<T>(gradient.get(), input.get(), count, dx.get(), stream.view());
    EXPECT_TRUE(same_bits(output.download(), in_place.download()));
    const Doubles found = output.doubles(), found_dx = dx.doubles();
    for (int64_t i = 0; i < count; ++i) {
      const Expected e = expected_at(x[i]);
      ASSERT_NEAR(found[i], e.value, (kStored<T> + 0x1p-17) * std::abs(e.value) + kSmallest<T>)
          << i << " of " << count;
      ASSERT_NEAR(found_dx[i], dy[i] * e.slope,
                  (kStored<T> * std::abs(e.slope) + 0x1p-16) * std::abs(dy[i]) + kSmallest<T>)
          << i << " of " << count;
    }
  }
}

TYPED_TEST(GeluDeviceTest, NanStaysNan) {
  using T = TypeParam;
  CudaStream stream;
  const Doubles nans(20, std::nan(""));
  Elements<T> x(nans), dx(Doubles(20, 1.0)), y(20);
  gelu_tanh<T>(x.get(), 20, y.get(), stream.view());
  gelu_tanh_backward<T>(dx.get(), x.get(), 20, dx.get(), stream.view());
  for (const double value : y.doubles()) EXPECT_TRUE(std::isnan(value));
  for (const double value : dx.doubles()) EXPECT_TRUE(std::isnan(value));
}

TEST(GeluDeviceTest, RefusesMisalignedMemory) {
  CudaStream stream;
  Elements<float> memory(normal_values(16, 1));
  EXPECT_THROW(gelu_tanh<float>(memory.get() + 1, 8, memory.get(), stream.view()), InternalError);
}

}  // namespace
}  // namespace sprocket::kernels::cuda
