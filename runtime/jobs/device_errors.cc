#include "runtime/jobs/device_errors.h"

namespace sprocket::runtime {

CudaError out_of_memory(const std::string& libtorch_says) {
  return CudaError(fmt::format(
      "{}\nLess memory is needed with training.activation_checkpointing: BLOCK, a smaller "
      "training.micro_batch, or more ranks for a sequence (parallel.ulysses, parallel.outer); "
      "`sprocket plan` estimates each",
      libtorch_says));
}

}  // namespace sprocket::runtime
