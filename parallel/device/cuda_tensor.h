// What sources that call the project's device kernels share: tensors as the kernels' arguments. For
// *_cuda.cc alone.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <cuda_bf16.h>

#include "base/error.h"
#include "kernels/cuda/argument_checks.h"
#include "kernels/head_view.h"
#include "parallel/tensor_buffer.h"

namespace sprocket::parallel::cuda {

template <class T>
const T* in(const at::Tensor& x) {
  return static_cast<const T*>(x.const_data_ptr());
}

template <class T>
T* out(const at::Tensor& x) {
  return static_cast<T*>(x.data_ptr());
}

inline int extent(const at::Tensor& x, int64_t dim) { return static_cast<int>(x.size(dim)); }

// Calls body(T{}) with the kernels' element type.
template <class Body>
void dispatch_device_type(at::ScalarType type, Body&& body) {
  if (type == at::kFloat) return body(float{});
  if (type == at::kBFloat16) return body(__nv_bfloat16{});
  throw InternalError(
      fmt::format("a kernel of the device: expected f32 or bf16, found {}", at::toString(type)));
}

// [B, rows, H, D] whose last dim is contiguous, under the kernels' element type.
template <class T>
kernels::HeadView<T> view_of(const at::Tensor& x_BLHD) {
  return head_view<T>(x_BLHD);
}
template <class T>
kernels::HeadView<const T> const_view_of(const at::Tensor& x_BLHD) {
  return const_head_view<T>(x_BLHD);
}
// The same for kernels that are told the element type beside.
inline kernels::HeadView<const void> const_rows_of(const at::Tensor& x_BLHD) {
  return const_head_view<void>(x_BLHD);
}
inline kernels::HeadView<void> rows_of(const at::Tensor& x_BLHD) { return head_view<void>(x_BLHD); }

// Memory for one call: the allocator gives it to nothing but later work of the same stream.
class CallWorkspace {
 public:
  CallWorkspace(int64_t bytes, const at::Tensor& like)
      : memory_(at::empty({bytes}, like.options().dtype(at::kByte))) {}

  kernels::cuda::Workspace view() const { return {memory_.data_ptr(), memory_.numel()}; }
  void* data() const { return memory_.data_ptr(); }

 private:
  at::Tensor memory_;
};

}  // namespace sprocket::parallel::cuda
