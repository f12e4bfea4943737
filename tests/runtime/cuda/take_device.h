// The device of tests that are built twice: with LibTorch's operators computed by the host, for the
// simulator, and with those of LibTorch's CUDA half, for a GPU.
#pragma once

#include "parallel/device/tensor_device.h"

namespace sprocket::testing {

parallel::TensorDevice take_device();

}  // namespace sprocket::testing
