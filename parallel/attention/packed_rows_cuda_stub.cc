#include "base/error.h"
#include "parallel/attention/packed_rows_device.h"

namespace sprocket::parallel::device {
namespace {

[[noreturn]] void refuse() { throw InternalError("rows on a device in a build without CUDA"); }

}  // namespace

void pack_rows(const at::Tensor&, const std::vector<kernels::RowRun>&, const at::Tensor&, int64_t) {
  refuse();
}

void add_packed_rows(const at::Tensor&, int64_t, const std::vector<kernels::RowRun>&,
                     const at::Tensor&) {
  refuse();
}

}  // namespace sprocket::parallel::device
