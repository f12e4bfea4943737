#include "tests/runtime/cuda/take_device.h"

namespace sprocket::testing {

parallel::TensorDevice take_device() { return parallel::TensorDevice::cuda(0); }

}  // namespace sprocket::testing
