// LibTorch's dense attention operators that the project calls on a device, computed by the host in
// fp32: cuDNN's forward and FlashAttention's backward, with the conventions that
// parallel/attention/dense_pass_device.h states. Arguments that the project does not use are
// refused.
#pragma once

namespace sprocket::testing {

struct DenseCalls {
  int forward = 0, backward = 0;
};

// Of this process so far, or since the last reset.
DenseCalls dense_calls();
void reset_dense_calls();

}  // namespace sprocket::testing
