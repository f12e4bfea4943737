#include "tests/runtime/cuda/host_operators.h"
#include "tests/runtime/cuda/take_device.h"

namespace sprocket::testing {

parallel::TensorDevice take_device() {
  use_host_operators();
  return parallel::TensorDevice::hold(0);
}

}  // namespace sprocket::testing
