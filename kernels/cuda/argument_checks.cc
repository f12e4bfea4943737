#include "kernels/cuda/argument_checks.h"

#include "base/error.h"

namespace sprocket::kernels::cuda {

void check_row_dim(int64_t dim, int64_t largest, const char* kernel) {
  if (dim < 8 || dim > largest || dim % 8 != 0) {
    throw ConfigError(
        fmt::format("{} on the device: rows of {} elements, legal are multiples of 8 from 8 to {}",
                    kernel, dim, largest));
  }
}

void check_head_dim(int64_t head_dim, int64_t dim, const char* kernel) {
  if (head_dim < 8 || head_dim % 8 != 0 || dim % head_dim != 0) {
    throw ConfigError(fmt::format(
        "{} on the device: heads of {} channels in rows of {}, legal are multiples of 8 that "
        "divide the row",
        kernel, head_dim, dim));
  }
}

void check_aligned(const void* data, const char* kernel, const char* name) {
  SPROCKET_CHECK(reinterpret_cast<uintptr_t>(data) % 16 == 0,
                 "{}: {} at {} is not aligned to 16 bytes", kernel, name, data);
}

void check_workspace(const Workspace& workspace, int64_t needed, const char* kernel) {
  check_aligned(workspace.data, kernel, "workspace");
  SPROCKET_CHECK(workspace.bytes >= needed && (workspace.data != nullptr || needed == 0),
                 "{}: a workspace of {} bytes, expected at least {}", kernel, workspace.bytes,
                 needed);
}

}  // namespace sprocket::kernels::cuda
