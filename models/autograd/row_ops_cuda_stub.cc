#include "base/error.h"
#include "models/autograd/row_ops.h"

namespace sprocket::models {

const RowOps& cuda_row_ops() {
  throw InternalError("a tensor on a device in a build without CUDA");
}

}  // namespace sprocket::models
