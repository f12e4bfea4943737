#include "models/autograd/row_ops.h"

#include "base/error.h"

namespace sprocket::models {

const RowOps& row_ops(const at::Tensor& x) {
  if (x.is_cpu()) return host_row_ops();
  SPROCKET_CHECK(x.is_cuda(), "expected a tensor of the processor or of a CUDA device, found {}",
                 x.device().str());
  return cuda_row_ops();
}

}  // namespace sprocket::models
