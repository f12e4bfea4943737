// What element-wise kernels ask of their arguments.
#pragma once

#include <cstdint>

#include "kernels/head_view.h"

namespace sprocket::kernels::cuda {

// Device memory of the caller's that a call may write anything to; 16-byte aligned. Free for others
// as soon as the stream is past the call.
struct Workspace {
  void* data = nullptr;
  int64_t bytes = 0;
};

// Throws ConfigError unless `dim` is a multiple of 8 in [8, largest].
void check_row_dim(int64_t dim, int64_t largest, const char* kernel);

// Throws ConfigError unless `head_dim` is a multiple of 8 that divides `dim`.
void check_head_dim(int64_t head_dim, int64_t dim, const char* kernel);

// Throws InternalError: `data` must be 16-byte aligned, as vector accesses need it. Null passes.
void check_aligned(const void* data, const char* kernel, const char* name);

// Data and strides of a view; a view without data passes.
template <class T>
void check_view(const HeadView<T>& view, const char* kernel, const char* name) {
  if (view.data == nullptr) return;
  for (const int64_t stride : {int64_t{0}, view.batch_stride, view.row_stride, view.head_stride}) {
    check_aligned(view.data + stride, kernel, name);
  }
}

// Throws InternalError unless `workspace` has `needed` bytes and is aligned.
void check_workspace(const Workspace& workspace, int64_t needed, const char* kernel);

}  // namespace sprocket::kernels::cuda
