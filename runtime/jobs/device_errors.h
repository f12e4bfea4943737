// LibTorch's errors of a device, in the project's words.
#pragma once

#include <string>

#include <c10/util/Exception.h>

#include "base/error.h"

namespace sprocket::runtime {

CudaError out_of_memory(const std::string& libtorch_says);

// work(); what LibTorch throws of a device becomes a CudaError.
template <class Work>
auto with_device_errors(Work&& work) {
  try {
    return work();
  } catch (const c10::OutOfMemoryError& error) {
    throw out_of_memory(error.what_without_backtrace());
  } catch (const c10::AcceleratorError& error) {
    throw CudaError(error.what_without_backtrace());
  }
}

}  // namespace sprocket::runtime
