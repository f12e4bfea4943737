// Buffers of test bodies in the memory of the current CUDA device.
#pragma once

#include <memory>

#include "tests/comm/test_memory.h"

namespace sprocket::comm::testing {

// What is written arrives late on its stream, behind work that takes longer than a small operation
// needs to start: one that does not wait for the stream finds what was there before. Throws
// CudaError. One rank's.
std::unique_ptr<TestMemory> make_device_memory();

}  // namespace sprocket::comm::testing
