// A build without CUDA says what it lacks, and what is legal.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "parallel/device/device_ordinal.h"
#include "parallel/device/tensor_device.h"

namespace sprocket::parallel {
namespace {

TEST(TensorDeviceStub, NamesTheOptionOfTheBuild) {
  EXPECT_EQ(visible_devices(), 0);
  EXPECT_THAT([] { TensorDevice::cuda(0); },
              ::testing::ThrowsMessage<ConfigError>(::testing::AllOf(
                  ::testing::HasSubstr("this build has no CUDA"),
                  ::testing::HasSubstr("-DSPROCKET_CUDA=ON"), ::testing::HasSubstr("CPU"))));
}

}  // namespace
}  // namespace sprocket::parallel
