// A build without CUDA says what it lacks, and what is legal.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "parallel/device/device_ordinal.h"
#include "parallel/device/tensor_device.h"

namespace sprocket::parallel {
namespace {

TEST(TensorDeviceStub, NamesTheOptionOfTheBuild) {
  const auto refusal = ::testing::ThrowsMessage<ConfigError>(
      ::testing::AllOf(::testing::HasSubstr("this build has no CUDA"),
                       ::testing::HasSubstr("-DSPROCKET_CUDA=ON"), ::testing::HasSubstr("CPU")));
  EXPECT_THAT([] { TensorDevice::cuda(0); }, refusal);
  EXPECT_THAT([] { visible_devices(); }, refusal);
}

}  // namespace
}  // namespace sprocket::parallel
