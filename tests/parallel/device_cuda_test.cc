// A build with CUDA, with and without a device to take.
#include <gtest/gtest.h>

#include <c10/core/AutogradState.h>

#include "base/error.h"
#include "parallel/device/device_ordinal.h"
#include "parallel/device/tensor_device.h"

namespace sprocket::parallel {
namespace {

TEST(TensorDeviceCuda, IsTakenOrSaysWhatIsMissing) {
  if (visible_devices() == 0) {
    EXPECT_THROW(TensorDevice::cuda(0), CudaError);
    EXPECT_TRUE(c10::AutogradState::get_tls_state().get_multithreading_enabled());
    return;
  }
  {
    const TensorDevice device = TensorDevice::cuda(0);
    EXPECT_EQ(device.device(), at::Device(at::kCUDA, 0));
    EXPECT_FALSE(current_stream(device.device()).is_host());
    EXPECT_FALSE(c10::AutogradState::get_tls_state().get_multithreading_enabled());
  }
  EXPECT_TRUE(c10::AutogradState::get_tls_state().get_multithreading_enabled());
}

}  // namespace
}  // namespace sprocket::parallel
