// LibTorch's operators on CUDA tensors without libtorch_cuda.so: memory through the CUDA runtime
// that the process has, everything else computed by the processor on copies. With the simulator of
// tests/cuda_simulator as that runtime, a whole training step runs where there is no device, and
// only the project's own kernels are executed as a device would.
//
// A process that links this must not load libtorch_cuda.so.
#pragma once

namespace sprocket::testing {

// Before the first tensor on a device. The operators register themselves; this keeps the file in
// the binary.
void use_host_operators();

}  // namespace sprocket::testing
