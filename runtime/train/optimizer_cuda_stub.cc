#include "base/error.h"
#include "runtime/train/optimizer_device.h"

namespace sprocket::runtime::device {
namespace {

[[noreturn]] void refuse() {
  throw InternalError("an optimizer on a device in a build without CUDA");
}

}  // namespace

double sum_of_squares(const at::Tensor&) { refuse(); }

void adamw_update(const kernels::AdamWStep&, const at::Tensor&, const at::Tensor&,
                  const at::Tensor&, const at::Tensor&, const at::Tensor&) {
  refuse();
}

}  // namespace sprocket::runtime::device
